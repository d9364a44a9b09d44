"""What every data set of indoor scenes is: images with depth and surface normals, as far as they are known."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lincon.tasks.experiments.data.sets import Data, standardised
from lincon.tasks.indoor.data.augment import Augment


class Batch(NamedTuple):
    """Images with what is to be regressed.

    images: (n, 3, height, width), uint8.
    depth: (n, height, width), float32: distance along the optical axis (z-depth), in metres; nan where not known.
    normals: (n, 3, height, width), float32: unit vectors in the camera's axes; nan where not known. The axes are those
        of Stanford 2D-3D-S's `data/` normals.
    """

    images: Tensor
    depth: Tensor
    normals: Tensor


class Scenes(Data):
    """Indoor scenes in two parts, ``train_set`` and ``test_set``, whose batches are `Batch`.

    Args:
        size: height and width of the images, in pixels.
    """

    evaluation_batch = 64

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 64,
    ) -> None:
        self.size = size
        super().__init__(seed, batch, root, limit)
        self.augment = Augment()

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    def prepared(self, batch: Batch, training: bool) -> Batch:
        seen = batch._replace(images=batch.images.float() / 255)
        seen = self.augment(seen) if training else seen
        return seen._replace(images=standardised(seen.images))
