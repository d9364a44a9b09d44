"""One part of a data set of labelled images (training or test)."""

import torch
from torch import Tensor

from lincon.tasks.experiments.data.sets import Split

Batch = tuple[Tensor, Tensor]
"""Images (n, channels, height, width), uint8 or float in [0, 1], and labels (n,) int64."""


class Labelled(Split):
    """Labelled images: ``split[indices]`` is the batch of those images. ``labels``: all labels, (n,) int64."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class InMemory(Labelled):
    """Images (n, channels, height, width) and labels (n,) that lie in memory, as ``tensors``."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.tensors, self.labels = (images, labels), labels

    def __getitem__(self, indices: list[int]) -> Batch:
        images, labels = self.tensors
        return images[indices], labels[indices]

    def subset(self, indices: Tensor) -> "InMemory":
        images, labels = self.tensors
        return InMemory(images[indices], labels[indices])


def stratified(labels: Tensor, count: int) -> Tensor:
    """Indices (count,), ascending, of a fixed choice in which classes have the shares that they have in ``labels``.

    Seats go to classes by Webster's method of apportionment: each class's images, once shuffled,
    stand at the quantiles (rank + 1/2) / size, and the lowest are taken. A larger choice contains a
    smaller one.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = labels.bincount()
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    quantiles = (torch.arange(len(labels)) - starts + 0.5).double() / sizes.repeat_interleave(sizes)
    return grouped[quantiles.argsort(stable=True)[:count]].sort().values
