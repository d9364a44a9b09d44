"""Images of any size in class folders of the user's own."""

from functools import partial
from pathlib import Path

from torch import Tensor

from lincon import LinconError
from lincon.tasks.classification.data.arrays import MEMORY, Parts, check_classes, split
from lincon.tasks.classification.data.folders import (
    ImageFiles,
    ImageNet,
    class_folders,
    read_folders,
)
from lincon.tasks.classification.data.own import OwnImages
from lincon.tasks.classification.data.sets import Labelled
from lincon.tasks.experiments.data.cached import Cached

TEST_FOLDERS = "test", "val", "valid", "validation"


class Folder(OwnImages):
    """Images in class folders, of any size: the shorter side becomes ``size``, the centre is taken.

    In ``root`` are train/<class>/ and test/<class>/ (or val, valid, validation), or <class>/ alone,
    which are then split. Mean and standard deviation are ImageNet's.

    Args:
        size: height and width of the images, in pixels.
        shift: pixels by which training images are moved at most, each way.
        flip: whether half of the training images are mirrored.
    """

    name = "folder"

    def __init__(
        self,
        seed: int = 0,
        batch: int = 64,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = 64,
        shift: int | None = None,
        flip: bool = False,
    ) -> None:
        source = partial(read_class_folders, size=size)
        super().__init__(seed, batch, root, limit, source=source, shift=shift, flip=flip)

    def _mean_and_deviation(self, train: Labelled) -> tuple[Tensor, Tensor]:
        return ImageNet.mean, ImageNet.std


def read_class_folders(root: Path | None, size: int) -> Parts:
    """The images in the folders of `Folder`, ``size`` pixels square."""
    if root is None:
        raise LinconError(
            "folder is not embedded: pass --root FOLDER with a folder of images for each class."
        )
    training = root / "train" if (root / "train").is_dir() else root
    names = [place.name for place in class_folders(training)]
    train = read_folders(training, names, size, size)
    places = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    note = ""
    if training != root and places:
        test = read_folders(places[0], names, size, size)
    else:
        train, test, note = split(train, str(training))
    check_classes(train.labels, test.labels, str(root))
    kept = _kept(train)
    kept.class_names = names
    return kept, _kept(test), note


class KeptImages(Cached, Labelled):
    """Image files that are decoded once."""

    def __init__(self, source: ImageFiles) -> None:
        super().__init__(source)
        self.labels = source.labels


def _kept(files: ImageFiles) -> Labelled:
    fits = 3 * files.crop * files.crop * len(files) <= MEMORY
    return KeptImages(files) if fits else files
