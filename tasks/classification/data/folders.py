"""Images in files, a folder for each class, as in ImageNet (Russakovsky et al. 2015)."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from kornia.augmentation import RandomHorizontalFlip, RandomResizedCrop
from PIL import Image
from torch import Tensor, nn

from lincon import LinconError
from lincon.shapes import UInt8
from lincon.tasks.classification.data.images import Images
from lincon.tasks.classification.data.sets import Batch, Labelled
from lincon.tasks.experiments.data.expected import check_folder, elsewhere
from lincon.tasks.experiments.data.listing import entries_of, pictures_in, warn_of_rest
from lincon.tasks.experiments.data.pictures import read_picture

RESIZED = 256  # the shorter side, before any crop
TINY = 1000  # below so many images, processes that load cost more than they save
LAYOUT = "--root FOLDER with train/<class>/ and val/<class>/ in it."


class ImageFiles(Labelled):
    """Image files, decoded when they are asked for: (n, 3, crop, crop) uint8.

    If there are many, worker processes decode them.

    Args:
        paths: a file for each image.
        labels: (n,) int64.
        crop: side of the square that is cut from the centre.
        border: pixels cut off every side before that.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, crop: int, border: int = 0) -> None:
        self.paths, self.labels = paths, labels
        self.crop, self.border = crop, border
        self.workers = min(8, os.cpu_count() or 1) if len(paths) >= TINY else 0

    def __getitem__(self, indices: list[int]) -> Batch:
        images = [decode(self.paths[i], self.crop, self.border) for i in indices]
        return Batch(torch.stack(images), self.labels[indices])

    def subset(self, indices: Tensor) -> "ImageFiles":
        paths = [self.paths[i] for i in indices.tolist()]
        return ImageFiles(paths, self.labels[indices], self.crop, self.border)

    def cropped(self, crop: int) -> "ImageFiles":
        """The same images in another crop."""
        return ImageFiles(self.paths, self.labels, crop, self.border)


def decode(path: Path, crop: int, border: int = 0) -> UInt8[Tensor, "3 {crop} {crop}"]:
    """One image file: RGB, the shorter side resized to 256, the centre cut out.

    Raises Unreadable, with the path, if the file is truncated or no image.
    """
    image = read_picture(path)
    image = image.crop((border, border, image.width - border, image.height - border))
    shorter = min(image.size)
    width, height = (RESIZED * side // shorter for side in image.size)
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    square = np.array(resized.crop((left, top, left + crop, top + crop)))
    return rearrange(torch.from_numpy(square), "height width rgb -> rgb height width")


def class_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, in the order of the class indices: sorted by name.

    What tools leave behind is no class, see `listing.is_leftover`.
    """
    check_folder(folder, f"pass {LAYOUT}")
    folders, _ = entries_of(folder)
    if not folders:
        raise LinconError(f"{folder} holds no class folders: pass {LAYOUT}")
    return folders


def read_folders(folder: Path, classes: Sequence[str], crop: int) -> ImageFiles:
    """The images in `folder/<class>/`, labelled by the index of the class in ``classes``.

    Files and folders that are no images are left out, with a warning that counts them.

    Raises:
        LinconError: no folders, an empty one, or one that is not in ``classes``, by name.
    """
    index = {name: place for place, name in enumerate(classes)}
    paths: list[Path] = []
    labels: list[int] = []
    _, rest = entries_of(check_folder(folder, f"pass {LAYOUT}"))
    for place in class_folders(folder):
        if place.name not in index:
            raise LinconError(
                f"{place} is a class that the training images do not have: remove or rename it."
            )
        images, others = pictures_in(place)
        paths += images
        rest += others
        labels += [index[place.name]] * len(images)
    warn_of_rest(folder, rest)
    return ImageFiles(paths, torch.tensor(labels), crop)


class ImageNet(Images):
    """Images of (3, 224, 224) in ImageNet's layout: `root/train/<class>/` and `root/val/<class>/`.

    In the test the shorter side is 256 and the centre of 224 is cut out. For training the centre of
    256 is cut out, so that a batch is one tensor. The device takes a random part of it, resized to
    224 and sometimes mirrored. Unlike in the usual recipe, pixels outside the central square are
    never seen. ``classes`` is the number of folders in train.
    """

    name = "imagenet"
    channels = 3
    size = 224
    mean = torch.tensor([0.485, 0.456, 0.406])
    std = torch.tensor([0.229, 0.224, 0.225])
    evaluation_batch = 128
    train_set: ImageFiles

    def _read(self, root: Path | None) -> tuple[Labelled, Labelled]:
        if root is None:
            raise LinconError(f"imagenet is not embedded: pass {LAYOUT}")
        if not (root / "train").exists():
            hint = elsewhere(root, ["train/"])
            raise LinconError(f"{root / 'train'} is missing: pass {LAYOUT}{hint}")
        names = [place.name for place in class_folders(root / "train")]
        self.classes = len(names)
        train = read_folders(root / "train", names, RESIZED)
        return train, read_folders(root / "val", names, self.size)

    def _augmentation(self) -> nn.Module:
        return nn.Sequential(RandomResizedCrop((self.size, self.size)), RandomHorizontalFlip())

    def evaluated(self, train: bool) -> Labelled:
        return self.train_set.cropped(self.size) if train else self.test_set
