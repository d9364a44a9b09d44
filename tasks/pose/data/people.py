"""What every data set of people is: a picture around each person, and where the joints are in it."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lincon.tasks.experiments.data.sets import Data, standardised
from lincon.tasks.pose.data.augment import Augment


class Batch(NamedTuple):
    """Pictures around people. Coordinates are (x, y) in pixels, (0, 0) the centre of the picture's top left pixel.

    images: (n, 3, size, size), uint8.
    joints: (n, people, 16, 2), float32, in the order of `skeleton.JOINTS`; the first person is the one that the picture
        is of, the others are whoever else is in it; 0 where not known.
    known: (n, people, 16), bool: whether the joint is annotated (it may be hidden, or outside of the picture).
    head: (n,), float32: head size of the first person in pixels, as PCKh counts it: 0.6 x the diagonal of the head box.
    """

    images: Tensor
    joints: Tensor
    known: Tensor
    head: Tensor


class People(Data):
    """People in two parts, ``train_set`` and ``test_set``, whose batches are `Batch`.

    Pictures may show more than `size` pixels across, for the augmentation to move into view: the centre is kept.

    Args:
        size: height and width of the pictures that a model sees, in pixels.
    """

    evaluation_batch = 128

    def __init__(
        self,
        seed: int = 0,
        batch: int = 64,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 256,
    ) -> None:
        self.size = size
        super().__init__(seed, batch, root, limit)
        self.augment = Augment()

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    def prepared(self, batch: Batch, training: bool) -> Batch:
        seen = batch._replace(images=batch.images.float() / 255)
        seen = central(self.augment(seen) if training else seen, self.size)
        return seen._replace(images=standardised(seen.images))


def central(batch: Batch, size: int) -> Batch:
    """The central ``size`` x ``size`` pixels of every picture."""
    edge = (batch.images.shape[-1] - size) // 2
    images = batch.images[..., edge : edge + size, edge : edge + size]
    return batch._replace(images=images, joints=batch.joints - edge * batch.known.unsqueeze(-1))
