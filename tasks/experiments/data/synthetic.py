"""Data sets that need no file: items made when they are asked for."""

from abc import abstractmethod
from copy import copy
from typing import Any, Self

import torch
from torch import Tensor

from lincon import LinconError
from lincon.tasks.experiments.data.sets import Split

SMALLEST = 16
"""Pixels below which nothing could be recognised."""


class Synthetic(Split):
    """Square pictures, each a function of seed, size and its index alone, bit for bit: ``made[[3, 1]]`` makes two.

    Args:
        count: number of pictures; any, as none is made before it is asked for.
        seed: of all of them.
        size: height and width in pixels.

    Raises:
        LinconError: a count or a size that is too small; an index that is out of range.
    """

    singular: str
    """What one is called in messages, as in "Picture"."""
    plural: str
    chunk: int
    """Pictures made together: so many that their pixels stay in the cache."""

    def __init__(self, count: int, seed: int, size: int) -> None:
        self._check_least("count", count, 1)
        self._check_least("size", size, SMALLEST)
        self.count, self.seed, self.size = count, seed, size
        self.indices: Tensor | None = None  # None: all

    @abstractmethod
    def make(self, indices: Tensor) -> Any:
        """The batch of the pictures at ``indices`` (n,), int64: a named tuple of tensors."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: list[int]) -> Any:
        parts = [
            self.make(part) for part in self._chosen(torch.as_tensor(indices, dtype=torch.int64))
        ]
        return type(parts[0])(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def subset(self, indices: Tensor) -> Self:
        """The pictures at ``indices`` (m,) alone, in that order."""
        part = copy(self)
        part.count, part.indices = len(indices), torch.cat(self._chosen(indices))
        return part

    def _chosen(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Indices of the whole set, in parts that are made together."""
        wrong = indices[(indices < 0) | (indices >= self.count)]
        if len(wrong):
            raise LinconError(
                f"{self.singular} {wrong[0]} of {self.count} {self.plural}: choose from 0 to {self.count - 1}."
            )
        return (indices if self.indices is None else self.indices[indices]).split(self.chunk)

    def _check_least(self, name: str, value: int, least: int) -> None:
        if value < least:
            raise LinconError(
                f"{self.plural.capitalize()} with {name}={value}: choose {name} from {least} on."
            )
