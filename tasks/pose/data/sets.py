"""The data sets of people: figures that are drawn, and photos on disk."""

from collections.abc import Sequence
from pathlib import Path

from lincon import LinconError
from lincon.tasks.experiments.data.picture_sets import SyntheticPictures
from lincon.tasks.pose.data import lsp, mpii
from lincon.tasks.pose.data.figures import Figures
from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.data.photos import Person, Photos

MARGIN = 1.5
"""How much larger training pictures are, so that turned and shrunk ones have no black corners."""


class DrawnFigures(SyntheticPictures, People):
    """Figures that are drawn when they are asked for: the data set that needs no file.

    Args:
        size: height and width in pixels.
        people: how many may be in a picture.
    """

    name = "figures"
    test_count = 1000
    cached_count = 20_000

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
        self.people = people
        super().__init__(seed, batch, root, limit, size=size)

    def source(self, count: int, seed: int) -> Figures:
        return Figures(count, seed, self.size, self.people)


class Mpii(People):
    """MPII Human Pose: `mpii_human_pose_v1_u12_1.mat` and `images/` in ``root``."""

    name = "mpii"

    def _read(self, root: Path | None) -> tuple[Photos, Photos]:
        folder = _required(root, self.name, f"{mpii.ANNOTATION} and images/")
        return self._photos(*mpii.read(folder))

    def _photos(
        self, training: Sequence[Person], validation: Sequence[Person], note: str
    ) -> tuple[Photos, Photos]:
        self.note = note
        return Photos(training, self.size, MARGIN), Photos(validation, self.size)


class Lsp(Mpii):
    """Leeds Sports Pose: `lsp_dataset/` in ``root``."""

    name = "lsp"

    def _read(self, root: Path | None) -> tuple[Photos, Photos]:
        folder = _required(root, self.name, "lsp_dataset/")
        return self._photos(*lsp.read(folder))


class LspExtended(Mpii):
    """Leeds Sports Pose with its extended training set: also `lspet_dataset/` in ``root``."""

    name = "lsp-extended"

    def _read(self, root: Path | None) -> tuple[Photos, Photos]:
        folder = _required(root, self.name, "lsp_dataset/ and lspet_dataset/")
        return self._photos(*lsp.read(folder, extended=True))


def _required(root: Path | None, name: str, content: str) -> Path:
    if root is None:
        raise LinconError(f"{name} is not embedded: pass --root FOLDER with {content}.")
    return root
