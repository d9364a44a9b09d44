"""Labelled images that a function of the user's returns, in whichever form."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lincon import LinconError
from lincon.tasks.classification.data.arrays import (
    MEMORY,
    PARTS,
    WHOLE,
    Parts,
    check_classes,
    check_together,
    images_of,
    labels_of,
    two_parts,
)
from lincon.tasks.classification.data.sets import Batch, InMemory, Labelled
from lincon.tasks.experiments.data.sets import digest


def call(root: Path | None, function: Callable[..., Any], name: str) -> Parts:
    """What a function of the user's returns.

    That is four arrays or tensors (x_train, y_train, x_test, y_test), two of them (x, y), a pair of
    pairs, a dictionary of these names, two `torch.utils.data.Dataset` of (image, label), or a
    LightningDataModule with such data sets. If the function has an argument `root`, it gets --root.
    """
    takes_root = "root" in signature(function).parameters
    arrays, sets = _sorted(function(root=root) if takes_root else function(), name)
    if arrays:
        return two_parts(arrays, name)
    train, test = (_items(each, f"{name}: {part}") for part, each in sets.items())
    if isinstance(train, InMemory) and isinstance(test, InMemory):
        check_together(train, test, name)
    check_classes(train.labels, test.labels, name)
    return train, test, ""


class Items(Labelled):
    """The items of a user's data set, read when they are asked for: each reading may be another.

    Args:
        source: ``source[index]`` is an image and its label.
        labels: (n,) int64, of all items.
        what: names the data set, for messages.
    """

    def __init__(self, source: Any, labels: Tensor, what: str) -> None:
        self.source, self.labels, self.what = source, labels, what
        self.indices = list(range(len(labels)))

    def __getitem__(self, indices: list[int]) -> Batch:
        images = [_image(self.source[self.indices[i]], self.what) for i in indices]
        return Batch(torch.cat(images), self.labels[indices])

    def fingerprint(self) -> str:
        """Of number and labels alone, since images may be others at each reading."""
        return digest(self.labels)

    def subset(self, indices: Tensor) -> "Items":
        part = Items(self.source, self.labels[indices], self.what)
        part.indices = [self.indices[i] for i in indices.tolist()]
        return part


def _sorted(found: Any, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a function returned, as arrays by their names, or else as two data sets."""
    if isinstance(found, Mapping):
        return dict(found), {}
    if isinstance(found, lightning.LightningDataModule):
        return {}, _of_module(found, path)
    if isinstance(found, Sequence) and len(found) == 2:
        if all(isinstance(each, Dataset) for each in found):
            return {}, dict(zip(("training", "test"), found, strict=True))
        if all(isinstance(each, Sequence) and len(each) == 2 for each in found):
            return dict(zip(PARTS, (*found[0], *found[1]), strict=True)), {}
        return dict(zip(WHOLE, found, strict=True)), {}
    if isinstance(found, Sequence) and len(found) == 4:
        return dict(zip(PARTS, found, strict=True)), {}
    raise LinconError(
        f"{path} returned a {type(found).__name__}; it must return ({', '.join(PARTS)}), (x, y), "
        "two torch.utils.data.Dataset, or a LightningDataModule."
    )


def _of_module(module: lightning.LightningDataModule, path: str) -> dict[str, Any]:
    """The data sets in the loaders of a LightningDataModule; the order of its loaders is not used."""
    module.prepare_data()
    module.setup("fit")
    train = module.train_dataloader()
    if _defines(module, "test_dataloader"):
        module.setup("test")
        test = module.test_dataloader()
    else:
        test = module.val_dataloader()
    for loader in (train, test):
        if not isinstance(loader, DataLoader):
            raise LinconError(
                f"{path}: a loader of {type(module).__name__} is a {type(loader).__name__}; one "
                "DataLoader for training and one for the test are needed."
            )
    return {"training": train.dataset, "test": test.dataset}


def _defines(module: lightning.LightningDataModule, name: str) -> bool:
    return getattr(type(module), name) is not getattr(lightning.LightningDataModule, name)


def _items(source: Any, what: str) -> Labelled:
    """A user's data set: in memory, if its items are the same at each reading and not too many."""
    if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
        raise LinconError(
            f"{what} data set is a stream: one with a length and items by index is needed."
        )
    count = len(source)
    if not count:
        raise LinconError(f"{what} data set is empty.")
    images, labels = [], []
    first = _image(source[0], what)
    keeps = first.nbytes * count <= MEMORY and _are_the_same_again(source, what)
    for index in range(count):
        item = source[index]
        image = _image(item, what)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise LinconError(
                f"{what} image {index} is {tuple(image.shape[1:])} of {image.dtype}, the first "
                f"{tuple(first.shape[1:])} of {first.dtype}; they must be alike."
            )
        labels.append(item[1])
        if keeps:
            images.append(image)
    checked = labels_of(_stacked(labels), count, f"{what} labels")
    return InMemory(torch.cat(images), checked) if keeps else Items(source, checked, what)


def _are_the_same_again(source: Any, what: str) -> bool:
    """Whether the first items, read twice, are the same: augmented ones are not."""
    first = range(min(len(source), 16))
    once, again = ([_image(source[index], what) for index in first] for _ in range(2))
    return all(image.equal(other) for image, other in zip(once, again, strict=True))


def _stacked(labels: Iterable[Any]) -> Any:
    """Labels, each a number or an array of one number, as one array."""
    return np.array([np.asarray(label) for label in labels])


def _image(item: Any, what: str) -> Tensor:
    """The image of an item, (1, channels, size, size)."""
    if not isinstance(item, Sequence) or len(item) != 2:
        raise LinconError(f"{what} items are of {type(item).__name__}; (image, label) is needed.")
    image = item[0]
    if isinstance(image, Image):
        image = np.asarray(image)
    elif not isinstance(image, Tensor | np.ndarray):
        raise LinconError(
            f"{what} images are of {type(image).__name__}: give tensors, arrays or PIL images."
        )
    return images_of(image[None], f"{what} images")
