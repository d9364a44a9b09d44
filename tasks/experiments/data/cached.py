"""A split that makes each item once."""

from typing import Any, Self

import torch
from torch import Tensor

from lincon.tasks.experiments.data.sets import Split


class Cached(Split):
    """The items of ``source``, whose batches are named tuples of tensors, kept in memory once they were asked for."""

    def __init__(self, source: Split) -> None:
        self.source = source
        self.there = torch.zeros(len(source), dtype=torch.bool)
        self.kept: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: list[int]) -> Any:
        wanted = torch.tensor(indices)
        new = wanted[~self.there[wanted]].unique()
        if len(new):
            made = self.source[new.tolist()]
            self.kind = type(made)
            self.kept = self.kept or [part.new_empty(len(self), *part.shape[1:]) for part in made]
            for kept, part in zip(self.kept, made, strict=True):
                kept[new] = part
            self.there[new] = True
        return self.kind(*(kept[wanted] for kept in self.kept))

    def subset(self, indices: Tensor) -> Self:
        return type(self)(self.source.subset(indices))
