"""Labelled images in arrays of the user's own: checked, and brought into one form.

Images are (n, height, width), (n, channels, height, width) or (n, height, width, channels), square;
uint8, or finite numbers of any range. Since every channel is standardised by the mean and standard
deviation of the training images, 0 to 255 and 0 to 1 come to the same. Labels are integers from 0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Int64, Num
from lincon.tasks.classification.data.sets import InMemory, Labelled, stratified
from lincon.tasks.experiments.data.npz import read_npz

Parts = tuple[Labelled, Labelled, str]
"""The training part, the test part, and a note that says how they were split."""

MEMORY = 1 << 30
"""Bytes of images that are kept in memory; more are read again in every epoch."""

PARTS = "x_train", "y_train", "x_test", "y_test"
WHOLE = "x", "y"
SPREAD = 16
"""How many times larger the values of one part may be than those of the other."""


def read_arrays(root: Path | None, path: Path) -> Parts:
    """x_train, y_train, x_test and y_test of a .npz file; or x and y, which are split."""
    return two_parts(read_npz(path), str(path))


def two_parts(arrays: Mapping[str, Any], source: str) -> tuple[InMemory, InMemory, str]:
    """The training and the test part of `PARTS` or of `WHOLE`, and a note that says how it was split.

    Args:
        arrays: by name.
        source: of the arrays, for messages.

    Raises:
        LinconError: an array that is missing, of another shape or kind, or whose values cannot be
            right, by name.
    """
    if all(name in arrays for name in PARTS):
        train = _checked(arrays, "x_train", "y_train", source)
        test = _checked(arrays, "x_test", "y_test", source)
        note = ""
    elif all(name in arrays for name in WHOLE):
        train, test, note = split(_checked(arrays, *WHOLE, source), source)
    else:
        there = ", ".join(map(str, arrays)) or "nothing"
        raise LinconError(
            f"{source} holds {there}: {', '.join(PARTS)} are needed, or {' and '.join(WHOLE)}, "
            "which are then split."
        )
    check_together(train, test, source)
    return train, test, note


def split(whole: Any, source: str) -> tuple[Any, Any, str]:
    """Four fifths for training and one for the test, always the same; and a note that says so.

    Args:
        whole: a `Labelled` split.
        source: of the images, for the note.

    Raises:
        LinconError: fewer than five images.
    """
    count = len(whole) // 5
    if not count:
        raise LinconError(f"{source} has {len(whole)} images: too few to split, give a test part.")
    for_test = stratified(whole.labels, count)
    is_for_training = torch.ones(len(whole), dtype=torch.bool)
    is_for_training[for_test] = False
    note = (
        f"{source} was split by lincon: {count:,} images for the test, a fixed fifth of each "
        f"class; {len(whole) - count:,} for training."
    )
    return whole.subset(is_for_training.nonzero().flatten()), whole.subset(for_test), note


def check_together(train: InMemory, test: InMemory, source: str) -> None:
    """Raise LinconError if the two parts are not of one kind."""
    (images, labels), (others, other_labels) = train.tensors, test.tensors
    if images.shape[1:] != others.shape[1:] or images.dtype != others.dtype:
        raise LinconError(
            f"{source}: training images are {_described(images)}, test images "
            f"{_described(others)}; they must be alike."
        )
    check_classes(labels, other_labels, source)
    largest = [float(part.abs().max()) for part in (images.float(), others.float())]
    if max(largest) > SPREAD * min(largest):
        raise LinconError(
            f"{source}: training images reach {largest[0]:g}, test images {largest[1]:g}; "
            "give both in one unit."
        )


def check_classes(
    labels: Int64[Tensor, " train"], others: Int64[Tensor, " test"], source: str
) -> None:
    """Raise LinconError unless there are two classes or more, all of which training images have."""
    lowest, highest = int(min(labels.min(), others.min())), int(max(labels.max(), others.max()))
    absent = [index for index in range(highest + 1) if index not in set(labels.tolist())]
    if absent or highest < 1:
        found = f"no training images of class {absent[0]}" if absent else "images of one class only"
        remedy = f": subtract {lowest}" if lowest else ""
        raise LinconError(
            f"{source}: labels are from {lowest} to {highest}, and there are {found}; number two "
            f"or more classes from 0{remedy}."
        )


def images_of(array: Any, what: str) -> Num[Tensor, "n channels height width"]:
    """Images as (n, channels, height, width), uint8 or float32; LinconError begins with ``what``."""
    images = _numbers(array, what)
    if images.dim() == 3:
        images = rearrange(images, "n height width -> n 1 height width")
    if images.dim() == 4 and images.shape[2] != images.shape[3]:
        images = rearrange(images, "n height width channels -> n channels height width")
    if images.dim() != 4 or images.shape[2] != images.shape[3] or 0 in images.shape:
        raise LinconError(
            f"{what} has shape {tuple(_numbers(array, what).shape)}; square images are needed: (n, "
            "size, size), (n, channels, size, size) or (n, size, size, channels)."
        )
    if images.dtype == torch.uint8:
        return images.contiguous()
    images = images.float().contiguous()
    if not bool(images.isfinite().all()):
        raise LinconError(f"{what} holds NaN, infinity or numbers beyond float32: leave them out.")
    return images


def labels_of(array: Any, count: int, what: str) -> Int64[Tensor, " {count}"]:
    """Labels as (n,) int64; LinconError begins with ``what``."""
    values = _numbers(array, what)
    if values.dim() == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (count,):
        raise LinconError(
            f"{what} has shape {tuple(values.shape)}, for {count} images: give a class index for "
            f"each, ({count},). Of one-hot labels it is the argmax."
        )
    whole = values.double()
    if not bool((whole == whole.round()).all()) or not bool(whole.isfinite().all()):
        raise LinconError(f"{what} holds numbers that are not whole: give class indices from 0.")
    if bool((whole < 0).any()) or bool((whole >= 1 << 20).any()):
        low, high = int(whole.min()), int(whole.max())
        raise LinconError(f"{what} holds labels from {low} to {high}: number the classes from 0.")
    return values.long()


def _checked(arrays: Mapping[str, Any], x: str, y: str, source: str) -> InMemory:
    images = images_of(arrays[x], f"{source}: {x}")
    return InMemory(images, labels_of(arrays[y], len(images), f"{source}: {y}"))


def _numbers(array: Any, what: str) -> Tensor:
    if isinstance(array, Tensor) and not array.is_complex():
        return array.detach().cpu()
    found = np.asarray(array)
    if found.dtype.kind not in "buif":
        raise LinconError(
            f"{what} is of {found.dtype}; real numbers are needed. Of names, "
            "np.unique(names, return_inverse=True)[1] are the indices."
        )
    wide = found.astype(np.float64) if found.dtype.kind in "ui" and found.itemsize > 1 else found
    return torch.from_numpy(np.ascontiguousarray(wide.astype(wide.dtype.newbyteorder("="))))


def _described(images: Tensor) -> str:
    return f"{tuple(images.shape[1:])} of {str(images.dtype).removeprefix('torch.')}"
