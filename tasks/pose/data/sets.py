"""The data sets as tasks train on them: where they come from, how they are divided, how large the pictures are."""

from pathlib import Path
from typing import Any

from lincon import LinconError
from lincon.tasks.experiments.data.cached import Cached
from lincon.tasks.experiments.data.sets import Split
from lincon.tasks.pose.data import lsp, mpii
from lincon.tasks.pose.data.figures import Figures
from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.data.photos import Photos

MARGIN = 1.5
"""How much larger training pictures of photos are, so that turned and shrunk ones have no black corners."""


FEW = 20_000
"""Figures that are drawn once and kept in memory; more are drawn again in every epoch."""

TEST = 1000
"""Figures of the test."""


class Drawn(People):
    """Figures drawn as they are asked for: the data set that needs no file.

    Training has 4,096 of them, or as many as the limit says: there is no end. The test has others, `TEST` of them.

    Args:
        size: height and width in pixels.
        people: how many may be in a picture.
    """

    name = "figures"

    def __init__(
        self,
        seed: int = 0,
        batch: int = 32,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 64,
        people: int = 2,
    ) -> None:
        self.count, self.people = 4096 if limit is None else limit, people
        super().__init__(seed, batch, root, size=size)

    def _read(self, root: Path | None) -> tuple[Split, Split]:
        if self.count < 1:
            raise LinconError(f"{self.count} training images asked for: choose 1 or more.")
        training = Figures(self.count, seed=0, size=self.size, people=self.people)
        test = Figures(TEST, seed=1, size=self.size, people=self.people)
        return Cached(training) if self.count <= FEW else training, Cached(test)


class Mpii(People):
    """MPII Human Pose: `mpii_human_pose_v1_u12_1.mat` and `images/` in ``root``."""

    name = "mpii"

    def _read(self, root: Path | None) -> tuple[Photos, Photos]:
        return self._photos(*mpii.read(_given(root, self.name, f"{mpii.ANNOTATION} and images/")))

    def _photos(self, training: Any, validation: Any, note: str) -> tuple[Photos, Photos]:
        self.note = note
        return Photos(training, self.size, MARGIN), Photos(validation, self.size)


class Lsp(Mpii):
    """Leeds Sports Pose: `lsp_dataset/` in ``root``."""

    name = "lsp"

    def _read(self, root: Path | None) -> tuple[Photos, Photos]:
        return self._photos(*lsp.read(_given(root, self.name, "lsp_dataset/")))


class LspExtended(Mpii):
    """Leeds Sports Pose, trained on its extended training set as well: also `lspet_dataset/` in ``root``."""

    name = "lsp-extended"

    def _read(self, root: Path | None) -> tuple[Photos, Photos]:
        return self._photos(
            *lsp.read(_given(root, self.name, "lsp_dataset/ and lspet_dataset/"), extended=True)
        )


def _given(root: Path | None, name: str, what: str) -> Path:
    if root is None:
        raise LinconError(f"{name} is not embedded: pass --root FOLDER with {what}.")
    return root
