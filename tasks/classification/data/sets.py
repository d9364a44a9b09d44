"""One part of a data set (training or test), and how it is cut into batches."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor]
"""Images (n, channels, height, width), uint8 or float in [0, 1], and labels (n,) int64."""


class Split(Dataset[Batch], ABC):
    """Labelled images: ``split[indices]`` is the batch of those images. ``labels``: all labels, (n,) int64."""

    labels: Tensor
    workers: int = 0  # processes that load

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def __getitem__(self, indices: list[int]) -> Batch: ...

    @abstractmethod
    def subset(self, indices: Tensor) -> Self:
        """The same kind of split with the images at ``indices`` alone."""


class InMemory(Split):
    """Images (n, channels, height, width) and labels (n,) that lie in memory, as ``tensors``."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.tensors, self.labels = (images, labels), labels

    def __getitem__(self, indices: list[int]) -> Batch:
        images, labels = self.tensors
        return images[indices], labels[indices]

    def subset(self, indices: Tensor) -> "InMemory":
        images, labels = self.tensors
        return InMemory(images[indices], labels[indices])


def loader(split: Split, order: Tensor, batch: int) -> DataLoader[Batch]:
    """The images at ``order`` (n,), ``batch`` a time: one indexing operation a batch, and nothing is collated.

    The generator is there so that loading leaves torch's global random state alone.
    """
    batches = [part.tolist() for part in order.split(batch)]
    return DataLoader(
        split, sampler=batches, batch_size=None, num_workers=split.workers, generator=torch.Generator().manual_seed(0)
    )


def stratified(labels: Tensor, count: int) -> Tensor:
    """Indices (count,), ascending, of a fixed choice in which classes have the shares that they have in ``labels``.

    Seats go to classes by Webster's method of apportionment: each class's images, once shuffled, stand at the
    quantiles (rank + 1/2) / size, and the lowest are taken. A larger choice contains a smaller one.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    quantiles = (torch.arange(len(labels)) - starts + 0.5).double() / sizes.repeat_interleave(sizes)
    return grouped[quantiles.argsort(stable=True)[:count]].sort().values
