"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), in the binary or the python release."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from lincon import LinconError
from lincon.tasks.classification.data.images import Batch, Images, crop_and_flip
from lincon.tasks.classification.data.pickles import Array, read_pickle
from lincon.tasks.classification.data.sets import InMemory, Labelled
from lincon.tasks.experiments.data.expected import check_file, elsewhere
from lincon.tasks.experiments.data.remedies import remedy

PIXELS = 3 * 32 * 32  # all of red, then green, then blue, row by row
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class Release:
    """One form of publication: its folder, and the files of each part."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all its files."""
        return self.train + self.test

    def find(self, root: Path) -> Path | None:
        """The folder in ``root``, or ``root`` itself, that holds at least one of the files."""
        for folder in (root / self.folder, root):
            if any((folder / name).exists() for name in self.names):
                return folder
        return None


class Cifar(Images):
    """Images of (3, 32, 32) from ``root``; the binary release is preferred.

    Subclasses define files and labels.
    """

    channels = 3
    size = 32
    binary: ClassVar[Release]
    python: ClassVar[Release]
    label_bytes: ClassVar[int]
    """Bytes before the pixels of a binary record; the last of them is the label."""
    label_entry: ClassVar[str]
    """Name of the labels in a file of the python release."""

    def _read(self, root: Path | None) -> tuple[Labelled, Labelled]:
        if root is not None and (folder := self.binary.find(root)):
            release, read = self.binary, self._read_binary
        elif root is not None and (folder := self.python.find(root)):
            release, read = self.python, self._read_python
        else:
            where = "" if root is None else f"in {root} there is neither: "
            hint = "" if root is None else elsewhere(root, self.binary.names + self.python.names)
            raise LinconError(
                f"{self.name} is read from {self.binary.folder} or {self.python.folder}: "
                f"{where}pass --root FOLDER with one of them, from {SOURCE}.{hint}"
            )
        _check_there(folder, release.names)
        train, test = ([folder / name for name in names] for names in (release.train, release.test))
        return _joined(map(read, train)), _joined(map(read, test))

    def _read_binary(self, path: Path) -> Batch:
        content = torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        record = self.label_bytes + PIXELS
        if len(content) == 0 or len(content) % record:
            advice = remedy(content[:512].numpy().tobytes())
            raise LinconError(
                f"{path} has {len(content)} bytes, no multiple of a record's {record}: {advice}."
            )
        records = content.view(-1, record)
        labels = records[:, self.label_bytes - 1].long()
        return self._checked(path, records[:, self.label_bytes :], labels)

    def _read_python(self, path: Path) -> Batch:
        entries = read_pickle(path)
        data, labels = entries.get("data"), entries.get(self.label_entry)
        kinds = {type(label) for label in labels} if isinstance(labels, list) else set()
        if not isinstance(data, Array) or not isinstance(labels, list) or kinds != {int}:
            raise LinconError(
                f"{path} has no array 'data' or no list of numbers {self.label_entry!r}: fetch it "
                "again."
            )
        try:
            rows, numbers = data.tensor(), torch.tensor(labels)
        except (ValueError, RuntimeError, TypeError, AttributeError) as reason:
            raise LinconError(f"{path} holds damaged data ({reason}): fetch it again.") from None
        if rows.shape != (len(labels), PIXELS):
            raise LinconError(
                f"{path} holds data of {tuple(rows.shape)} for {len(labels)} labels, where "
                f"{(len(labels), PIXELS)} is needed: fetch it again."
            )
        return self._checked(path, rows, numbers)

    def _checked(self, path: Path, rows: Tensor, labels: Tensor) -> Batch:
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if len(wrong):
            raise LinconError(
                f"{path} holds a label {wrong[0]}, outside of 0 to {self.classes - 1}: fetch it "
                "again."
            )
        images = rearrange(
            rows, "n (rgb height width) -> n rgb height width", rgb=3, height=32, width=32
        )
        return Batch(images, labels)

    def _augmentation(self) -> nn.Module:
        return crop_and_flip(self.size, padding=4)


class Cifar10(Cifar):
    """50,000 + 10,000 images of 10 classes."""

    name = "cifar10"
    classes = 10
    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    mean = torch.tensor([0.4914, 0.4822, 0.4465])
    std = torch.tensor([0.2470, 0.2435, 0.2616])
    binary = Release(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        ("test_batch.bin",),
    )
    python = Release(
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
    )
    label_bytes = 1
    label_entry = "labels"


class Cifar100(Cifar):
    """50,000 + 10,000 images of 100 classes (the fine labels)."""

    name = "cifar100"
    classes = 100
    mean = torch.tensor([0.5071, 0.4867, 0.4408])
    std = torch.tensor([0.2675, 0.2565, 0.2761])
    binary = Release("cifar-100-binary", ("train.bin",), ("test.bin",))
    python = Release("cifar-100-python", ("train",), ("test",))
    label_bytes = 2  # coarse, fine
    label_entry = "fine_labels"


def _check_there(folder: Path, names: Iterable[str]) -> None:
    remedy = f"unpack the whole release, from {SOURCE}."
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise LinconError(f"{folder} lacks {', '.join(missing)}: {remedy}")
    for name in names:
        check_file(folder / name, remedy)


def _joined(batches: Iterable[Batch]) -> InMemory:
    images, labels = zip(*batches, strict=True)
    return InMemory(torch.cat(images), torch.cat(labels))
