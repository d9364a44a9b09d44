"""The tape of ``materialize="model"``: it generates all weights of a group before the forward.

Some generators cannot process a short range of rows cheaply (see `Generator.grain`). For them the
gradients of small tensors are collected, and all that lie side by side are reduced in one call.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lincon.attaching.free_vector import FreeVector
from lincon.step.generated import Key, Shelf
from lincon.step.tape import Tape

Range = tuple[int, int]


class ModelTape(Tape):
    """Generates all weights in one operation a group."""

    def __init__(self, vectors: Sequence[FreeVector], shelves: Sequence[Sequence[Shelf]]) -> None:
        super().__init__(vectors, shelves)
        self.shelves = shelves
        with torch.no_grad():
            generated = [vector.weights() for vector in self.vectors]
        self.weights = [
            [self.track(weight, (number, index)) for index, weight in enumerate(group)]
            for number, group in enumerate(generated)
        ]
        for group, weights in zip(shelves, self.weights, strict=True):
            for shelf, weight in zip(group, weights, strict=True):
                shelf.weight = weight
        self.collected: dict[int, Tensor] = {}
        """Gradients of small tensors in their rows, (rows,) for each group."""
        self.ranges: dict[int, list[Range]] = {}
        """The filled rows of `collected`."""

    def weight(self, key: Key) -> Tensor:
        number, index = key
        self.shelves[number][index].weight = None  # it becomes a class that no graph takes
        return self.weights[number][index]

    def close(self) -> None:
        super().close()
        self.weights.clear()
        for group in self.shelves:
            for shelf in group:
                shelf.weight = None

    def add(self, key: Key, grad: Tensor) -> None:
        """Reduce the gradient now if the tensor has at least a grain of rows; else collect it."""
        (number, _), start = key, self.entry(key).start
        linear_map = self.map(number)
        if grad.numel() >= linear_map.grain:
            self.accumulate(number, start, grad)
            return
        if number not in self.collected:
            device = self.free[number].device
            self.collected[number] = torch.empty(linear_map.rows, dtype=grad.dtype, device=device)
        stop = start + grad.numel()
        self.collected[number][start:stop] = grad.reshape(-1)
        self.ranges.setdefault(number, []).append((start, stop))

    def gradient(self, number: int) -> Tensor | None:
        if (flat := self.collected.pop(number, None)) is not None:
            for start, stop in _joined(self.ranges.pop(number)):
                self.accumulate(number, start, flat[start:stop])
        return super().gradient(number)

    def suspend(self) -> tuple[Any, ...]:
        collected, self.collected = self.collected, {}
        ranges, self.ranges = self.ranges, {}
        return (*super().suspend(), collected, ranges)

    def resume(self, sums: tuple[Any, ...]) -> None:
        *rest, self.collected, self.ranges = sums
        super().resume(tuple(rest))


def _joined(ranges: list[Range]) -> list[Range]:
    """Ranges of rows (start, stop) in order, where adjacent ranges are joined."""
    runs: list[Range] = []
    for start, stop in sorted(ranges):
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return runs
