"""Scaled: diag(s) G diag(c), a generator with multipliers of its rows and of its columns.

This is the map that a constraint applies: the ledger gives each tensor's multiplier s, and
`isometric` asks for c = 1 / √diag(Gᵀ diag(s)² G).
"""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, final

import torch
from torch import Tensor

from lincon.generator import Generator, Table
from lincon.maps.per_device import per_device
from lincon.maps.piece import Piece
from lincon.maps.segments import NO_SEGMENTS, Segments
from lincon.shapes import Float

RANGES = 1 << 12
"""Ranges of rows whose segments are kept: those of the tensors, step after step."""


@final
class Scaled(Generator):
    """A generator with row multipliers, one a segment, and optionally columns of unit norm.

    Args:
        inner: the generator G.
        sizes: rows of each segment, in order; they add up to G's rows.
        scales: multiplier of each segment.
        isometric: whether every column (that is used) gets norm 1.

    >>> from lincon.generators import Identity
    >>> scaled = Scaled(Identity(rows=3, dof=3), sizes=[1, 2], scales=[1.0, 10.0], isometric=False)
    >>> scaled.unpack(torch.tensor([1.0, 2.0, 3.0]))
    tensor([ 1., 20., 30.])
    """

    name = "scaled"
    allows_unused = True

    def __init__(
        self, inner: Generator, sizes: Sequence[int], scales: Sequence[float], isometric: bool
    ) -> None:
        super().__init__(inner.rows, inner.dof, inner.seed)
        self.inner, self.isometric = inner, isometric
        self.sizes, self.scales = list(sizes), list(scales)
        self.grain = inner.grain
        has_one_scale = len(set(self.scales)) == 1
        self.diagonal_gram = inner.disjoint or (inner.diagonal_gram and has_one_scale)

    def options(self) -> dict[str, Any]:
        return {
            "inner": self.inner.spec(),
            "sizes": self.sizes,
            "scales": self.scales,
            "isometric": self.isometric,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return Scaled, (self.inner, self.sizes, self.scales, self.isometric)

    @cached_property
    def _segments(self) -> Callable[[int, int], Segments]:
        """The segments of the rows [start, stop), counted from start."""
        ends = list(accumulate(self.sizes, initial=0))
        every = Segments.joined(zip(ends, ends[1:], self.scales, strict=False))
        return lru_cache(RANGES)(every.within)

    @per_device
    def _column_scale(self, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " dof"]:
        """1 / norm of each column; 1 for a column that no row reads."""
        norms = self.inner.gram_diagonal(self._row_squares()).sqrt()
        return norms.where(norms > 0, torch.ones_like(norms)).reciprocal().to(device, dtype)

    def _row_squares(self) -> Float[Tensor, " rows"] | None:
        """The square of each row's multiplier; None if all are 1."""
        if set(self.scales) == {1.0}:
            return None
        squares = torch.tensor(self.scales, dtype=torch.float64).square()
        return squares.repeat_interleave(torch.tensor(self.sizes))

    def made_by(self, device: torch.device) -> str:
        return self.inner.made_by(device)

    def work(self, rows: int) -> float | None:
        return self.inner.work(rows)

    @per_device
    def as_table(self, device: torch.device, dtype: torch.dtype) -> Table | None:
        table = self.inner.as_table(device, dtype)
        if table is None:
            return None
        scales = torch.tensor(self.scales, dtype=dtype, device=device)
        index, factor = table
        return index, factor * scales.repeat_interleave(torch.tensor(self.sizes, device=device))

    @property
    def prepared_dof(self) -> int:
        return self.inner.prepared_dof

    def prepare(self, free: Float[Tensor, " dof"]) -> Float[Tensor, " prepared_dof"]:
        if self.isometric:
            wide = free.to(torch.promote_types(free.dtype, torch.float32))
            free = (wide * self._column_scale(wide.device, wide.dtype)).to(free.dtype)
        return self.inner.prepare(free)

    def prepare_adjoint(self, total: Float[Tensor, " prepared_dof"]) -> Float[Tensor, " dof"]:
        total = self.inner.prepare_adjoint(total)
        return total * self._column_scale(total.device, total.dtype) if self.isometric else total

    def write(
        self, out: Tensor, prepared: Tensor, start: int, segments: Segments = NO_SEGMENTS
    ) -> None:
        """Generate rows; ``segments`` are its own: nothing wraps a scaled generator."""
        self.inner.write(out, prepared, start, self._segments(start, start + len(out)))

    def write_onto(
        self,
        out: Tensor,
        prepared: Tensor,
        start: int,
        origin: Tensor,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        """`write`, and add ``origin``; ``segments`` are its own, as there."""
        self.inner.write_onto(out, prepared, start, origin, self._segments(start, start + len(out)))

    def accumulate(
        self, out: Tensor, grad: Tensor, start: int, segments: Segments = NO_SEGMENTS
    ) -> None:
        """Add the adjoint of rows; ``segments`` are its own, as in `write`."""
        self.inner.accumulate(out, grad, start, self._segments(start, start + len(grad)))

    def accumulate_all(self, out: Tensor, pieces: Sequence[Piece]) -> None:
        """Add the adjoint of all pieces; their segments are its own, as in `write`."""
        own = [
            Piece(piece.start, piece.rows, self._segments(piece.start, piece.stop))
            for piece in pieces
        ]
        self.inner.accumulate_all(out, own)

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        self.write(out, prepared, start)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        self.accumulate(out, grad, start)

    def energy(self, start: int, stop: int) -> float:
        if self.isometric:
            return super().energy(start, stop)
        total = 0.0
        for low, high, scale in self._segments(start, stop):
            energy = scale * scale * self.inner.energy(start + low, start + high)
            total += energy * (high - low)
        return total / max(1, stop - start)

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        squares = self._row_squares()
        if weights is not None:
            weights = weights.double().cpu()
            squares = weights if squares is None else squares * weights
        gram = self.inner.gram_diagonal(squares)
        if not self.isometric:
            return gram
        return gram * self._column_scale(gram.device, gram.dtype).square()
