"""One part of a data set of labelled images (training or test)."""

from typing import NamedTuple

import torch
from torch import Tensor

from lincon.shapes import Int64, Num
from lincon.tasks.experiments.data.sets import Split


class Batch(NamedTuple):
    """Images, uint8 or float in [0, 1], and their labels."""

    images: Num[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]


class Labelled(Split):
    """Labelled images: ``split[indices]`` is the batch of those images."""

    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


class InMemory(Labelled):
    """Images and labels in memory, as ``tensors``."""

    def __init__(
        self, images: Num[Tensor, "n channels height width"], labels: Int64[Tensor, " n"]
    ) -> None:
        self.tensors, self.labels = (images, labels), labels

    def __getitem__(self, indices: list[int]) -> Batch:
        images, labels = self.tensors
        return Batch(images[indices], labels[indices])

    def subset(self, indices: Tensor) -> "InMemory":
        images, labels = self.tensors
        return InMemory(images[indices], labels[indices])


def stratified(labels: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " {count}"]:
    """Indices, ascending, of a fixed choice in which classes have the shares of ``labels``.

    Classes get their places by Webster's method of apportionment: each class's images, once
    shuffled, stand at the quantiles (rank + 1/2) / size, and the lowest are taken. A larger choice
    contains a smaller one.

    >>> labels = torch.tensor([0] * 6 + [1] * 3)
    >>> labels[stratified(labels, 3)].tolist()
    [0, 0, 1]
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    size = sizes.repeat_interleave(sizes)
    start = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    quantiles = (torch.arange(len(labels)) - start + 0.5).double() / size
    return grouped[quantiles.argsort(stable=True)[:count]].sort().values
