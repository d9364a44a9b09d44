"""Part: some columns, and some rows, of another generator; what pruning leaves of it.

G[i, j] = H[r(i), c(j)] with H the inner generator, r and c the rows and columns that are kept, in their order. Dropping
a column sets a free number to zero for good, and with it every weight that reads it alone: DoF after pruning are what
is left. Dropping rows is what a network loses with its channels. Cost: that of H, and O(dof of H) to put the free
numbers in their places. The file stores the two masks, entropy-coded, and H by its spec.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator, Segments, times_segments
from lincon.generators._around import Around
from lincon.maps.registry import register


@register
@final
class Part(Around):
    """Rows and columns of another generator.

    Args:
        rows, dof: how many are kept.
        seed: that of ``inner``.
        inner: a generator, or its spec.
        kept_columns: (dof of inner,) bool, of which ``dof`` are true; None for all.
        kept_rows: (rows of inner,) bool, of which ``rows`` are true; None for all.
        tables: of ``inner``, by their names after "inner_", where it comes as a spec.

    Raises:
        LinconError: masks of another shape, or that keep another number.
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
        self._columns = _mask("kept_columns", kept_columns, self.inner.dof, dof)
        self._rows_kept = _mask("kept_rows", kept_rows, self.inner.rows, rows)
        self.diagonal_gram = (
            self.inner.diagonal_gram if self._rows_kept is None else self.inner.disjoint
        )
        self._places: dict[tuple[str, torch.device], Tensor] = {}

    def own_tables(self) -> dict[str, Tensor]:
        masks = {"kept_columns": self._columns, "kept_rows": self._rows_kept}
        return {name: mask for name, mask in masks.items() if mask is not None}

    def offset(self) -> Tensor | None:
        inner = self.inner.offset()
        return inner if inner is None or self._rows_kept is None else inner[self._rows_kept]

    def fewer(self, columns: Tensor | None, rows: Tensor | None) -> "Part":
        """The part of this part, as a part of the same inner generator; masks (dof,) and (rows,), None for all."""
        outer = [_narrowed(self._columns, columns), _narrowed(self._rows_kept, rows)]
        return Part.of(self.inner, *outer)

    @classmethod
    def of(
        cls, inner: Generator, columns: Tensor | None = None, rows: Tensor | None = None
    ) -> "Part":
        """The columns and rows of ``inner`` where the masks, (dof,) and (rows,) bool, are true; None for all.

        Raises LinconError where nothing would be left.
        """
        if isinstance(inner, Part):
            return inner.fewer(columns, rows)
        height = inner.rows if rows is None else int(rows.sum())
        width = inner.dof if columns is None else int(columns.sum())
        if not (height and width):
            raise LinconError(
                f"part: {height} rows and {width} columns of {inner!r} would be left; keep one or more."
            )
        return cls(height, width, inner.seed, inner=inner, kept_columns=columns, kept_rows=rows)

    def masked(self, mask: Callable[[Generator, Tensor], Generator], shown: Tensor) -> "Part":
        """The same part of the inner generator after ``mask``; ``shown``: (rows,) bool, of this part's rows."""
        rows = shown
        if self._rows_kept is not None:
            rows = torch.ones(self.inner.rows, dtype=torch.bool)
            rows[self._rows_kept] = shown
        inner = mask(self.inner, rows)
        return Part(
            self.rows,
            self.dof,
            self.seed,
            inner=inner,
            kept_columns=self._columns,
            kept_rows=self._rows_kept,
        )

    def write(self, out: Tensor, prepared: Tensor, start: int, segments: Segments = ()) -> None:
        if self._rows_kept is None:
            return self.inner.write(out, prepared, start, segments)
        rows = self._place("rows", out.device)[start : start + len(out)]
        if len(rows):
            span = out.new_empty(int(rows[-1] - rows[0]) + 1)
            self.inner.write(span, prepared, int(rows[0]))
            torch.index_select(span, 0, rows - rows[0], out=out)
        for low, high, scale in segments:
            out[low:high].mul_(scale)

    def accumulate(self, out: Tensor, grad: Tensor, start: int, segments: Segments = ()) -> None:
        if self._rows_kept is None:
            self.inner.accumulate(out, grad, start, segments)
        elif len(grad):
            rows = self._place("rows", grad.device)[start : start + len(grad)]
            span = out.new_zeros(int(rows[-1] - rows[0]) + 1)
            span[rows - rows[0]] = times_segments(grad, out.dtype, segments)
            self.inner.accumulate(out, span, int(rows[0]))

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        if self._rows_kept is not None:
            every = torch.zeros(self.inner.rows, dtype=torch.float64)
            every[self._rows_kept] = 1.0 if weights is None else weights.double().cpu()
            weights = every
        gram = self.inner.gram_diagonal(weights)
        return gram if self._columns is None else gram[self._columns]

    def prepare(self, free: Tensor) -> Tensor:
        """The free numbers in their places among those of the inner generator, zeros elsewhere."""
        if self._columns is None:
            return self.inner.prepare(free)
        whole = free.new_zeros(self.inner.dof)
        whole[self._place("columns", free.device)] = free
        return self.inner.prepare(whole)

    def prepare_adjoint(self, total: Tensor) -> Tensor:
        total = self.inner.prepare_adjoint(total)
        return total if self._columns is None else total[self._place("columns", total.device)]

    def _place(self, what: str, device: torch.device) -> Tensor:
        """Indices of what is kept, (rows,) or (dof,)."""
        if (what, device) not in self._places:
            mask = self._rows_kept if what == "rows" else self._columns
            assert mask is not None
            self._places[what, device] = mask.nonzero().squeeze(1).to(device)
        return self._places[what, device]


def _mask(name: str, mask: Tensor | None, length: int, kept: int) -> Tensor | None:
    if mask is None:
        if kept != length:
            raise LinconError(f"part: {kept} of {length} are kept, but {name} does not say which.")
        return None
    if not isinstance(mask, Tensor):
        raise LinconError(f"part: {name} must be a tensor of bool, got a {type(mask).__name__}.")
    if mask.shape != (length,) or mask.dtype != torch.bool or int(mask.sum()) != kept:
        raise LinconError(
            f"part: {name} must be bool of shape ({length},) with {kept} true, got {tuple(mask.shape)}."
        )
    return mask.detach().cpu()


def _narrowed(mask: Tensor | None, within: Tensor | None) -> Tensor | None:
    """A mask, of whose true places only those stay that are true in ``within``."""
    if mask is None or within is None:
        return within if mask is None else mask
    narrowed = mask.clone()
    narrowed[mask] = within.cpu()
    return narrowed
