"""The data sets as tasks train on them: where they come from, how they are divided, how large the images are."""

from pathlib import Path

from lincon import LinconError
from lincon.tasks.experiments.data.cached import Cached
from lincon.tasks.experiments.data.sets import Split
from lincon.tasks.indoor.data import stanford
from lincon.tasks.indoor.data.rooms import Rooms
from lincon.tasks.indoor.data.scenes import Scenes

TEST = 500
"""Rooms of the test."""
FEW = 10_000
"""Rooms that are cast once and kept in memory; more are cast again in every epoch."""


class RayCast(Scenes):
    """Rooms ray-cast as they are asked for: the data set that needs no file.

    Training has 4,096 of them, or as many as the limit says: there is no end. The test has others, `TEST` of them.
    """

    name = "rooms"

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 64,
    ) -> None:
        self.count = 4096 if limit is None else limit
        super().__init__(seed, batch, root, size=size)

    def _read(self, root: Path | None) -> tuple[Split, Split]:
        if self.count < 1:
            raise LinconError(f"{self.count} training images asked for: choose 1 or more.")
        training, test = (
            Rooms(self.count, seed=0, size=self.size),
            Rooms(TEST, seed=1, size=self.size),
        )
        return Cached(training) if self.count <= FEW else training, Cached(test)


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
