"""Part: some columns, and some rows, of another generator; what pruning leaves of it.

G[i, j] = H[r(i), c(j)] with H the inner generator, r and c the rows and columns that are kept, in
their order. To drop a column sets a free number to zero for good, and with it every weight that
reads it alone: after pruning, the DoF are the columns that are left. Rows are dropped when a
network loses channels. Cost: that of H, and O(dof of H) to put the free numbers in their places.
The file stores the two masks, entropy-coded, and H by its spec.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator, times_segments
from lincon.generators._wrapper import Wrapper, as_mask
from lincon.maps.per_device import per_device
from lincon.maps.registry import register
from lincon.maps.segments import NO_SEGMENTS, Segments
from lincon.shapes import Bool, Float, Int


@register
@final
class Part(Wrapper):
    """Rows and columns of another generator: G[i, j] = H[r(i), c(j)].

    Cost: that of H, and O(dof of H).

    Args:
        rows, dof: how many are kept.
        seed: that of ``inner``.
        inner: the generator H, or its spec.
        kept_columns: (dof of inner,) bool, of which ``dof`` are true; None for all.
        kept_rows: (rows of inner,) bool, of which ``rows`` are true; None for all.
        tables: those of ``inner``, by their names after "inner_", if it comes as a spec.

    Raises:
        LinconError: masks of another shape, or with another number of true places.

    >>> from lincon.generators import Identity
    >>> part = Part.of(Identity(rows=3, dof=3), columns=torch.tensor([True, False, True]))
    >>> part.unpack(torch.tensor([1.0, 3.0]))
    tensor([1., 0., 3.])
    """

    name = "part"
    left_by = "lincon.prune"

    def __init__(
        self,
        rows: int,
        dof: int,
        seed: int = 0,
        *,
        inner: Generator | dict[str, Any] | None = None,
        kept_columns: Tensor | None = None,
        kept_rows: Tensor | None = None,
        **tables: Tensor,
    ) -> None:
        super().__init__(rows, dof, seed, inner, tables)
        self._kept_columns = _kept("kept_columns", kept_columns, self.inner.dof, dof)
        self._kept_rows = _kept("kept_rows", kept_rows, self.inner.rows, rows)
        all_rows = self._kept_rows is None
        self.diagonal_gram = self.inner.diagonal_gram if all_rows else self.inner.disjoint

    def own_tables(self) -> dict[str, Tensor]:
        masks = {"kept_columns": self._kept_columns, "kept_rows": self._kept_rows}
        return {name: mask for name, mask in masks.items() if mask is not None}

    def offset(self) -> Float[Tensor, " rows"] | None:
        inner = self.inner.offset()
        return inner if inner is None or self._kept_rows is None else inner[self._kept_rows]

    def fewer(
        self, columns: Bool[Tensor, " dof"] | None, rows: Bool[Tensor, " rows"] | None
    ) -> "Part":
        """The part of this part, as a part of the same inner generator; None for all."""
        kept_columns = _narrowed(self._kept_columns, columns)
        kept_rows = _narrowed(self._kept_rows, rows)
        return Part.of(self.inner, kept_columns, kept_rows)

    @classmethod
    def of(
        cls,
        inner: Generator,
        columns: Bool[Tensor, " dof"] | None = None,
        rows: Bool[Tensor, " rows"] | None = None,
    ) -> "Part":
        """The columns and rows of ``inner`` where the masks are true; None for all.

        Raises LinconError where nothing would be left.
        """
        if isinstance(inner, Part):
            return inner.fewer(columns, rows)
        height = inner.rows if rows is None else int(rows.sum())
        width = inner.dof if columns is None else int(columns.sum())
        if not (height and width):
            raise LinconError(
                f"part: {height} rows and {width} columns of {inner!r} would be left; "
                "keep one or more of each."
            )
        return cls(height, width, inner.seed, inner=inner, kept_columns=columns, kept_rows=rows)

    def masked(
        self, mask: Callable[[Generator, Tensor], Generator], shown: Bool[Tensor, " rows"]
    ) -> "Part":
        """The same part of the inner generator after ``mask``; ``shown`` is of this part's rows."""
        inner_shown = shown
        if self._kept_rows is not None:
            inner_shown = torch.ones(self.inner.rows, dtype=torch.bool)
            inner_shown[self._kept_rows] = shown
        return Part(
            self.rows,
            self.dof,
            self.seed,
            inner=mask(self.inner, inner_shown),
            kept_columns=self._kept_columns,
            kept_rows=self._kept_rows,
        )

    def work(self, rows: int) -> float | None:
        """The inner generator makes the rows between those that are kept, too."""
        return super().work(-(-rows * self.inner.rows // self.rows))

    def write(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        if self._kept_rows is None:
            return self.inner.write(out, prepared, start, segments)
        rows = self._row_places(out.device)[start : start + len(out)]
        if len(rows):
            # The inner generator writes all rows from the first to the last that is kept.
            first, last = int(rows[0]), int(rows[-1])
            span = out.new_empty(last - first + 1)
            self.inner.write(span, prepared, first)
            torch.index_select(span, 0, rows - first, out=out)
        for low, high, scale in segments:
            out[low:high].mul_(scale)

    def accumulate(
        self,
        out: Float[Tensor, " prepared_dof"],
        grad: Float[Tensor, " n"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        if self._kept_rows is None:
            self.inner.accumulate(out, grad, start, segments)
        elif len(grad):
            rows = self._row_places(grad.device)[start : start + len(grad)]
            first, last = int(rows[0]), int(rows[-1])
            span = out.new_zeros(last - first + 1)
            span[rows - first] = times_segments(grad, out.dtype, segments)
            self.inner.accumulate(out, span, first)

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        if self._kept_rows is not None:
            inner_weights = torch.zeros(self.inner.rows, dtype=torch.float64)
            inner_weights[self._kept_rows] = 1.0 if weights is None else weights.double().cpu()
            weights = inner_weights
        gram = self.inner.gram_diagonal(weights)
        return gram if self._kept_columns is None else gram[self._kept_columns]

    def prepare(self, free: Float[Tensor, " dof"]) -> Float[Tensor, " prepared_dof"]:
        """The inner generator's, of the free numbers in their places and zeros elsewhere."""
        if self._kept_columns is None:
            return self.inner.prepare(free)
        inner_free = free.new_zeros(self.inner.dof)
        inner_free[self._column_places(free.device)] = free
        return self.inner.prepare(inner_free)

    def prepare_adjoint(self, total: Float[Tensor, " prepared_dof"]) -> Float[Tensor, " dof"]:
        total = self.inner.prepare_adjoint(total)
        return total if self._kept_columns is None else total[self._column_places(total.device)]

    @per_device
    def _row_places(self, device: torch.device) -> Int[Tensor, " rows"]:
        assert self._kept_rows is not None
        return self._kept_rows.nonzero().squeeze(1).to(device)

    @per_device
    def _column_places(self, device: torch.device) -> Int[Tensor, " dof"]:
        assert self._kept_columns is not None
        return self._kept_columns.nonzero().squeeze(1).to(device)


def _kept(argument: str, mask: Tensor | None, length: int, kept: int) -> Tensor | None:
    if mask is not None:
        return as_mask(f"part: {argument}", mask, length, kept)
    if kept != length:
        raise LinconError(f"part: {kept} of {length} are kept, but {argument} does not say which.")
    return None


def _narrowed(mask: Tensor | None, within: Tensor | None) -> Tensor | None:
    """``mask`` with those true places alone that are true in ``within``; None is all true."""
    if mask is None or within is None:
        return within if mask is None else mask
    narrowed = mask.clone()
    narrowed[mask] = within.cpu()
    return narrowed
