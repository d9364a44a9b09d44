"""Images in files, a folder for each class, as in ImageNet (Russakovsky et al. 2015)."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from kornia.augmentation import RandomHorizontalFlip, RandomResizedCrop
from PIL import Image
from torch import Tensor, nn

from lincon import LinconError
from lincon.tasks.classification.data.images import Images
from lincon.tasks.classification.data.sets import Batch, Labelled
from lincon.tasks.experiments.data.pictures import read_picture

RESIZED = 256  # the shorter side, before any crop
TINY = 1000  # below so many images, processes that load cost more than they save


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


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, in the order of the class indices: sorted."""
    if not folder.is_dir():
        raise LinconError(
            f"{folder} is missing: pass --root FOLDER with train/<class>/ and val/<class>/ in it."
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise LinconError(
            f"{folder} holds no class folders: pass --root FOLDER with train/<class>/ and "
            "val/<class>/."
        )
    return names


def read_folders(folder: Path, classes: Sequence[str], crop: int) -> ImageFiles:
    """The images in `folder/<class>/`, labelled by the index of the class in ``classes``.

    Raises:
        LinconError: no folders, an empty one, or one that is not in ``classes``, by name.
    """
    index = {name: place for place, name in enumerate(classes)}
    paths: list[Path] = []
    labels: list[int] = []
    for name in class_folders(folder):
        if name not in index:
            raise LinconError(
                f"{folder / name} is a class that the training images do not have: remove or "
                "rename it."
            )
        files = image_files(folder / name)
        paths += files
        labels += [index[name]] * len(files)
    return ImageFiles(paths, torch.tensor(labels), crop)


def image_files(folder: Path) -> list[Path]:
    """The files of one class, sorted, without hidden ones; LinconError if there are none."""
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()
        )
    if not names:
        raise LinconError(f"{folder} holds no images: fill or remove it.")
    return [folder / name for name in names]


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
            raise LinconError(
                "imagenet is not embedded: pass --root FOLDER with train/<class>/ and val/<class>/."
            )
        names = class_folders(root / "train")
        self.classes = len(names)
        train = read_folders(root / "train", names, RESIZED)
        return train, read_folders(root / "val", names, self.size)

    def _augmentation(self) -> nn.Module:
        return nn.Sequential(RandomResizedCrop((self.size, self.size)), RandomHorizontalFlip())

    def evaluated(self, train: bool) -> Labelled:
        return self.train_set.cropped(self.size) if train else self.test_set
