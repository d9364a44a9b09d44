"""Scaled: diag(s) G diag(c), a generator whose rows are multiplied tensor by tensor and whose columns may have norm 1.

This is the map a constraint really applies: the ledger gives each tensor's multiplier s, `isometric` asks for
c = 1 / √diag(GᵀG).
"""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from lincon.generator import Generator, Segments
from lincon.maps.per_device import per_device


@final
class Scaled(Generator):
    """A generator with row multipliers, one a segment, and optionally columns of unit norm.

    Args:
        inner: the generator G.
        sizes: rows of each segment, in order; they add up to G's rows.
        scales: multiplier of each segment.
        isometric: whether every column (that is used) gets norm 1.
    """

    name = "scaled"
    allows_unused = True

    def __init__(
        self, inner: Generator, sizes: Sequence[int], scales: Sequence[float], isometric: bool
    ) -> None:
        super().__init__(inner.rows, inner.dof, inner.seed)
        self.inner, self.sizes, self.scales, self.isometric = (
            inner,
            list(sizes),
            list(scales),
            isometric,
        )
        self.grain = inner.grain
        uniform = len(set(self.scales)) == 1
        self.diagonal_gram = inner.disjoint or (inner.diagonal_gram and uniform)

    def options(self) -> dict[str, Any]:
        return {
            "inner": self.inner.spec(),
            "sizes": self.sizes,
            "scales": self.scales,
            "isometric": self.isometric,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return Scaled, (self.inner, self.sizes, self.scales, self.isometric)

    def _segments(self, start: int, stop: int) -> Segments:
        """(low, high, scale) of the pieces of [start, stop), counted from start; equal neighbours are one."""
        position = 0
        merged: list[tuple[int, int, float]] = []
        for size, scale in zip(self.sizes, self.scales, strict=True):
            low, high = max(position, start), min(position + size, stop)
            position += size
            if low >= high:
                continue
            if merged and merged[-1][2] == scale:
                merged[-1] = (merged[-1][0], high - start, scale)
            else:
                merged.append((low - start, high - start, scale))
        return merged

    @per_device
    def _column_scale(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """1 / norm of each column, (dof,); 1 for a column that no row reads."""
        norms = self.inner.gram_diagonal(self._row_squares()).sqrt()
        return norms.where(norms > 0, torch.ones_like(norms)).reciprocal().to(device, dtype)

    def _row_squares(self) -> Tensor | None:
        if set(self.scales) == {1.0}:
            return None
        squares = torch.tensor(self.scales, dtype=torch.float64).square()
        return squares.repeat_interleave(torch.tensor(self.sizes))

    @property
    def prepared_dof(self) -> int:
        return self.inner.prepared_dof

    def prepare(self, free: Tensor) -> Tensor:
        if self.isometric:
            wide = free.to(torch.promote_types(free.dtype, torch.float32))
            free = (wide * self._column_scale(wide.device, wide.dtype)).to(free.dtype)
        return self.inner.prepare(free)

    def prepare_adjoint(self, total: Tensor) -> Tensor:
        total = self.inner.prepare_adjoint(total)
        return total * self._column_scale(total.device, total.dtype) if self.isometric else total

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        self.inner.write(out, prepared, start, self._segments(start, start + len(out)))

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        self.inner.accumulate(out, grad, start, self._segments(start, start + len(grad)))

    def energy(self, start: int, stop: int) -> float:
        if self.isometric:
            return super().energy(start, stop)
        parts = [
            (scale * scale * self.inner.energy(start + a, start + b), b - a)
            for a, b, scale in self._segments(start, stop)
        ]
        return sum(energy * rows for energy, rows in parts) / max(1, stop - start)

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        squares = self._row_squares()
        if weights is not None:
            squares = (
                weights.double().cpu() if squares is None else squares * weights.double().cpu()
            )
        gram = self.inner.gram_diagonal(squares)
        return (
            gram * self._column_scale(gram.device, gram.dtype).square() if self.isometric else gram
        )
