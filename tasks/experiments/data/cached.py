"""A split that makes each item once."""

from typing import Any, Self

import torch
from torch import Tensor

from lincon.shapes import Int64
from lincon.tasks.experiments.data.sets import Split


class Cached(Split):
    """The items of another split, each kept in memory from when it is first asked for.

    Args:
        source: a split whose batches are named tuples of tensors.
    """

    def __init__(self, source: Split) -> None:
        self.source = source
        self.is_cached = torch.zeros(len(source), dtype=torch.bool)
        self.cache: list[Tensor] = []  # a tensor of all items for each field of a batch

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: list[int]) -> Any:
        wanted = torch.tensor(indices)
        missing = torch.unique(wanted[~self.is_cached[wanted]])
        if len(missing):
            self._add(missing)
        return self.kind(*(values[wanted] for values in self.cache))

    def subset(self, indices: Int64[Tensor, " items"]) -> Self:
        return type(self)(self.source.subset(indices))

    def _add(self, indices: Int64[Tensor, " missing"]) -> None:
        batch = self.source[indices.tolist()]
        self.kind = type(batch)
        if not self.cache:
            # Memory is only reserved here: the system provides it as items are written.
            self.cache = [values.new_empty(len(self), *values.shape[1:]) for values in batch]
        for cached, values in zip(self.cache, batch, strict=True):
            cached[indices] = values
        self.is_cached[indices] = True
