"""The tape of ``materialize="model"``: it generates all weights of a group before the forward.

Some generators cannot process a short range of rows cheaply (see `Generator.grain`). For them the
gradients of small tensors are collected, and all that lie side by side are reduced in one call.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lincon.attaching.free_vector import FreeVector
from lincon.generator import rows_of_table
from lincon.maps.piece import Piece
from lincon.step.layout import Key, Layout
from lincon.step.tape import Tape

Range = tuple[int, int]


class ModelTape(Tape):
    """Generates all weights in one operation a group."""

    def __init__(self, vectors: Sequence[FreeVector], layouts: Sequence[Layout]) -> None:
        super().__init__(vectors, layouts)
        self.weights = [self.generate(number) for number in range(len(self.vectors))]
        self.collected: dict[int, Tensor] = {}
        """Gradients of small tensors in their rows, (rows,) for each group."""
        self.ranges: dict[int, list[Range]] = {}
        """The filled rows of `collected`."""

    def generate(self, number: int) -> list[Tensor]:
        """The weights of a group, in the order of its ledger."""
        layout, group = self.layouts[number], self.vectors[number].group
        if (rows := self.from_table(number)) is not None:
            parts = torch.unsafe_split_with_sizes(rows, layout.sizes)
            weights = [part.view(shape) for part, shape in zip(parts, layout.shapes, strict=True)]
            self.watch(weights)
            return weights
        with torch.inference_mode(False), torch.no_grad():
            # These are no views, and each has a counter of writes of its own.
            weights = list(torch.unsafe_split_with_sizes(self.rows(number), layout.sizes))
            for weight, shape in zip(weights, layout.shapes, strict=True):
                weight.resize_(shape)
            if group.devices:
                devices = map(group.device, range(len(weights)))
                weights = [w.to(d or w.device) for w, d in zip(weights, devices, strict=True)]
        tracked: list[Tensor] = []
        for run in layout.runs:
            tracked += self.track(weights[run.start : run.stop], number, run)
        return tracked

    def rows(self, number: int) -> Tensor:
        """All rows of a group, (rows,), without autograd."""
        vector, free, linear_map = self.vectors[number], self.effective[number], self.map(number)
        dtype, origin = vector.dtype, vector.origin
        if not is_watched():
            prepared = linear_map.prepare(free.to(dtype))
            return linear_map.prepared_rows(prepared, 0, linear_map.rows, origin)
        rows = linear_map.unpack(free, dtype=dtype)
        return rows if origin is None else rows.add_(origin.to(dtype))

    def from_table(self, number: int) -> Tensor | None:
        """All rows of a small map in a step that trains, by operations that autograd knows."""
        vector, free = self.vectors[number], self.effective[number]
        trains = torch.is_grad_enabled() and free.requires_grad
        if not trains or vector.dtype != free.dtype or vector.group.devices or is_watched():
            return None
        linear_map = self.map(number)
        table = linear_map.as_table(free.device, free.dtype)
        if table is None:
            return None
        rows = rows_of_table(table, linear_map.prepare(free))
        origin = vector.origin
        return rows if origin is None else rows + origin.to(rows.dtype)

    def weight(self, key: Key) -> Tensor:
        number, index = key
        return self.weights[number][index]

    def close(self) -> None:
        super().close()
        self.weights.clear()

    def add(self, number: int, pieces: list[Piece]) -> None:
        """Reduce gradients now if they have at least a grain of rows; else collect them."""
        linear_map = self.map(number)
        if sum(len(piece.rows) for piece in pieces) >= linear_map.grain:
            self.accumulate(number, pieces)
            return
        if number not in self.collected:
            dtype, device = pieces[0].rows.dtype, self.free[number].device
            self.collected[number] = torch.empty(linear_map.rows, dtype=dtype, device=device)
        for piece in pieces:
            self.collected[number][piece.start : piece.stop] = piece.rows
            self.ranges.setdefault(number, []).append((piece.start, piece.stop))

    def gradient(self, number: int) -> Tensor | None:
        if (flat := self.collected.pop(number, None)) is not None:
            ranges = _joined(self.ranges.pop(number))
            self.accumulate(number, [Piece(start, flat[start:stop]) for start, stop in ranges])
        return super().gradient(number)

    def suspend(self) -> tuple[Any, ...]:
        collected, self.collected = self.collected, {}
        ranges, self.ranges = self.ranges, {}
        return (*super().suspend(), collected, ranges)

    def resume(self, sums: tuple[Any, ...]) -> None:
        *rest, self.collected, self.ranges = sums
        super().resume(tuple(rest))


def is_watched() -> bool:
    """Whether a mode of torch sees every operation: it counts them, or its tensors have no values.

    Such modes know the operator of a generator, and not what is within it.
    """
    return _get_current_dispatch_mode() is not None


def _joined(ranges: list[Range]) -> list[Range]:
    """Ranges of rows (start, stop) in order, where adjacent ranges are joined."""
    runs: list[Range] = []
    for start, stop in sorted(ranges):
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return runs
