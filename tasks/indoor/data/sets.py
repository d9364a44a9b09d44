"""The data sets of indoor scenes: rooms that are ray-cast, and views on disk."""

from pathlib import Path

from lincon import LinconError
from lincon.tasks.experiments.data.picture_sets import SyntheticPictures
from lincon.tasks.experiments.data.sets import Split
from lincon.tasks.indoor.data import stanford
from lincon.tasks.indoor.data.rooms import Rooms
from lincon.tasks.indoor.data.scenes import Scenes


class RayCast(SyntheticPictures, Scenes):
    """Rooms that are ray-cast when they are asked for: the data set that needs no file."""

    name = "rooms"
    test_count = 500
    cached_count = 10_000

    def source(self, count: int, seed: int) -> Rooms:
        return Rooms(count, seed, self.size)


class Stanford(Scenes):
    """Stanford 2D-3D-Semantics: `area_<n>/data/` in ``root``, in the official layout.

    Args:
        size: height and width that images are reduced to, in pixels.
        fold: 1, 2 or 3, the official division by area.
    """

    name = "2d-3d-s"

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 256,
        fold: int = 1,
    ) -> None:
        self.fold = fold
        super().__init__(seed, batch, root, limit, size=size)

    def _read(self, root: Path | None) -> tuple[Split, Split]:
        if root is None:
            raise LinconError(
                f"{self.name} is not embedded: pass --root FOLDER with area_1/data/rgb/ and so on."
            )
        training, test, self.note = stanford.read(root, self.fold, size=self.size)
        return training, test
