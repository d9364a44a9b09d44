"""The base of all data sets of labelled images, augmented and standardised on the device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from torch import Tensor, nn

from lincon import LinconError
from lincon.shapes import Float, Num
from lincon.tasks.classification.data.sets import Batch, Labelled, stratified
from lincon.tasks.experiments.data.sets import Data

__all__ = ["Batch", "Images", "crop_and_flip", "floats"]


class Images(Data):
    """Labelled images in two parts, ``train_set`` and ``test_set``, indexed by lists.

    A subclass says ``name``, ``channels``, ``classes`` and ``size``, and writes ``_read(root)``. That
    sets ``mean`` and ``std``, (channels,) of images in [0, 1], unless the class has them, and returns
    the training and the test part: `InMemory`, or another `Labelled`, of images (n, channels, height,
    width), uint8 or float32 in [0, 1], and labels (n,), int64 from 0. ``_augmentation()`` returns what
    is done to training images. Its own options are keyword-only arguments of ``__init__``, with
    numbers as defaults; it sets them before it calls this ``__init__``, which calls ``_read``:

        class Stripes(Images):
            name, channels, classes, size = "stripes", 1, 4, 16

            def __init__(self, seed: int = 0, batch: int = 64, root: Path | None = None,
                         limit: int | None = None, *, noise: float = 0.3) -> None:
                self.noise = noise
                super().__init__(seed, batch, root, limit)

    A limit keeps the shares of the classes.

    Raises:
        LinconError: images or labels that are not as the class says, beside those of `Data`.
    """

    channels: int
    classes: int
    size: int  # height and width
    mean: Float[Tensor, " channels"]
    std: Float[Tensor, " channels"]
    class_names: Sequence[str] = ()
    """Names of the classes, if they have any."""
    shorter: int = 0
    """What the shorter side of a picture becomes before the centre is cut out; 0 for `size`."""

    def __init__(
        self, seed: int = 0, batch: int = 64, root: Path | None = None, limit: int | None = None
    ) -> None:
        super().__init__(seed, batch, root, limit)
        self.augment = self._augmentation()
        self._check()

    def _check(self) -> None:
        of_channels = [getattr(self, name, None) for name in ("mean", "std")]
        if any(n is None or n.shape != (self.channels,) for n in of_channels):
            raise LinconError(
                f"Data set {self.name!r} has no mean and std of shape ({self.channels},): set both "
                "in _read, a number a channel, of the training images."
            )
        for part, split in (("training", self.train_set), ("test", self.test_set)):
            with torch.random.fork_rng(devices=[]):  # items may be drawn at random
                self._check_images(split[[0]].images, f"{part} images of data set {self.name!r}")
            self._check_labels(split.labels, f"{part} labels of data set {self.name!r}")

    def _check_images(self, images: Tensor, what: str) -> None:
        of_kind = images.dtype in (torch.uint8, torch.float32)
        if not of_kind or images.dim() != 4 or images.shape[1] != self.channels:
            raise LinconError(
                f"{what} are {tuple(images.shape[1:])} of {images.dtype}; give ({self.channels}, "
                "height, width) of torch.uint8, or of torch.float32 from 0 to 1."
            )

    def _check_labels(self, labels: Tensor, what: str) -> None:
        low, high = labels.min(), labels.max()
        if labels.dtype != torch.int64 or low < 0 or high >= self.classes:
            raise LinconError(
                f"{what} are {labels.dtype} from {low:g} to {high:g}; its {self.classes} classes "
                f"are torch.int64 from 0 to {self.classes - 1}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.classes, self.size

    def described(self) -> dict[str, Any]:
        some = floats(self.train_set[list(range(min(64, len(self.train_set))))].images)
        return {
            "classes": list(self.class_names) or [str(index) for index in range(self.classes)],
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "shorter": self.shorter or self.size,
            "range": [float(some.min()), float(some.max())],
        }

    def _augmentation(self) -> nn.Module:
        """A kornia module; its output is (n, channels, size, size), floats in [0, 1]. None by default."""
        return nn.Identity()

    def _chosen(self, split: Labelled, limit: int) -> Tensor:
        return stratified(split.labels, limit)

    def prepare(
        self, images: Num[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n channels height width"]:
        """The images as a model sees them in the test: floats, standardised."""
        return self._standardise(floats(images))

    def prepared(self, batch: Batch, training: bool) -> Batch:
        images = floats(batch.images)
        images = self.augment(images) if training else images
        return Batch(self._standardise(images), batch.labels)

    def _standardise(self, images: Tensor) -> Tensor:
        mean, std = (
            rearrange(numbers.to(images.device), "channels -> channels 1 1")
            for numbers in (self.mean, self.std)
        )
        return (images - mean) / std


def floats(images: Num[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """uint8 images as float32 in [0, 1]; floats as they are.

    >>> import torch
    >>> floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
    [0.0, 1.0]
    """
    return images if images.is_floating_point() else images.float() / 255


def crop_and_flip(size: int, padding: int) -> nn.Module:
    """The usual augmentation: mirroring, and shifts by up to ``padding`` pixels, black outside."""
    return nn.Sequential(RandomCrop((size, size), padding=padding), RandomHorizontalFlip())
