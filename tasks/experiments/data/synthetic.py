"""Data sets that need no file: items are made when they are asked for."""

from abc import abstractmethod
from copy import copy
from typing import Any, Self

import torch
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Int64
from lincon.tasks.experiments.data.sets import Split

SMALLEST = 16
"""Height and width in pixels below which nothing could be recognised."""


class Synthetic(Split):
    """Square pictures, each a function of seed, size and its index alone, bit for bit.

    ``pictures[[3, 1]]`` makes two of them.

    Args:
        count: number of pictures; any, since none is made before it is asked for.
        seed: of all of them.
        size: height and width in pixels.

    Raises:
        LinconError: a count or a size that is too small; an index that is out of range.
    """

    singular: str
    """What messages call one of them, as in "Picture"."""
    plural: str
    """What messages call many of them, as in "figures"."""
    chunk: int
    """How many are made together: so many that their pixels stay in the cache."""

    def __init__(self, count: int, seed: int, size: int) -> None:
        self._check_least("count", count, 1)
        self._check_least("size", size, SMALLEST)
        self.count, self.seed, self.size = count, seed, size
        self.indices: Tensor | None = None  # of a subset in the whole set

    @abstractmethod
    def make(self, indices: Int64[Tensor, " n"]) -> Any:
        """The batch of the pictures at ``indices``: a named tuple of tensors."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: list[int]) -> Any:
        wanted = self._in_whole_set(torch.as_tensor(indices, dtype=torch.int64))
        batches = [self.make(part) for part in torch.split(wanted, self.chunk)]
        fields = [torch.cat(parts) for parts in zip(*batches, strict=True)]
        return type(batches[0])(*fields)

    def subset(self, indices: Int64[Tensor, " items"]) -> Self:
        """The pictures at ``indices`` alone, in that order."""
        part = copy(self)
        part.count, part.indices = len(indices), self._in_whole_set(indices)
        return part

    def _in_whole_set(self, indices: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Indices of this set as indices of the whole set."""
        wrong = indices[(indices < 0) | (indices >= self.count)]
        if len(wrong):
            raise LinconError(
                f"{self.singular} {wrong[0]} of {self.count} {self.plural}: "
                f"choose from 0 to {self.count - 1}."
            )
        return indices if self.indices is None else self.indices[indices]

    def _check_least(self, name: str, value: int, least: int) -> None:
        if value < least:
            raise LinconError(
                f"{self.plural.capitalize()} with {name}={value}: choose {name} from {least} on."
            )
