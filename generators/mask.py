"""Mask: another generator with some of its rows zero, which is what pruning single weights leaves.

G[i, j] = m[i] H[i, j] with H the inner generator and m[i] 0 or 1. Weights that are pruned stay zero
however W is trained. A free number is a degree of freedom for as long as some weight reads it: the
sparsity of Ŵ and the DoF are two things. Cost: that of H. The file stores the mask, entropy-coded,
and H by its spec.

When to use: through `lincon.prune(model, keep, level="weights")`, which makes it.
"""

from typing import Any, final

import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator
from lincon.generators._wrapper import Wrapper, as_mask
from lincon.generators.part import Part
from lincon.maps.per_device import per_device
from lincon.maps.registry import register
from lincon.maps.segments import NO_SEGMENTS, Segments
from lincon.shapes import Bool, Float, Int8

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type of each width in bytes."""


@register
@final
class Mask(Wrapper):
    """Another generator with some of its rows zero: G[i, j] = m[i] H[i, j]. Cost: that of H.

    Args:
        rows, dof, seed: those of ``inner``.
        inner: the generator H, or its spec.
        shown: (rows,) bool, false where a row is zero.
        tables: those of ``inner``, by their names after ``"inner_"``, if it comes as a spec.

    Raises:
        LinconError: rows or dof that are not those of ``inner``, or a mask of another shape.

    >>> from lincon.generators import Identity
    >>> mask = Mask.of(Identity(rows=3, dof=3), torch.tensor([True, False, True]))
    >>> mask.unpack(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 0., 3.])
    """

    name = "mask"
    left_by = "lincon.prune(level='weights')"

    def __init__(
        self,
        rows: int,
        dof: int,
        seed: int = 0,
        *,
        inner: Generator | dict[str, Any] | None = None,
        shown: Tensor | None = None,
        **tables: Tensor,
    ) -> None:
        super().__init__(rows, dof, seed, inner, tables)
        if (self.inner.rows, self.inner.dof) != (rows, dof):
            raise LinconError(f"mask: {self.inner!r} does not have {rows} rows and {dof} dof.")
        self.shown = as_mask("mask: shown", shown, rows)
        self.diagonal_gram = self.inner.disjoint

    def own_tables(self) -> dict[str, Tensor]:
        return {"shown": self.shown}

    @classmethod
    def of(cls, inner: Generator, shown: Bool[Tensor, " rows"]) -> Generator:
        """``inner`` with zero rows where ``shown`` is false.

        Masks are never nested: of a masked generator it is the same generator under both masks, of
        a part the same part of the masked generator.
        """
        if isinstance(inner, Mask):
            return cls.of(inner.inner, inner.shown & shown.cpu())
        if isinstance(inner, Part):
            return inner.masked(cls.of, shown.cpu())
        return cls(inner.rows, inner.dof, inner.seed, inner=inner, shown=shown)

    def write(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        self.inner.write(out, prepared, start, segments)
        _as_integers(out).bitwise_and_(self._all_bits(out.device)[start : start + len(out)])

    def accumulate(
        self,
        out: Float[Tensor, " prepared_dof"],
        grad: Float[Tensor, " n"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        all_bits = self._all_bits(grad.device)[start : start + len(grad)]
        shown = _as_integers(grad.resolve_neg()).bitwise_and(all_bits).view(grad.dtype)
        self.inner.accumulate(out, shown, start, segments)

    def offset(self) -> Float[Tensor, " rows"] | None:
        inner = self.inner.offset()
        return None if inner is None else inner * self.shown

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        shown = self.shown.double()
        if weights is not None:
            shown = shown * weights.double().cpu()
        return self.inner.gram_diagonal(shown)

    @per_device
    def _all_bits(self, device: torch.device) -> Int8[Tensor, " rows"]:
        """All bits (-1) of rows that are shown, none (0) of the others.

        The mask is applied to bits because a product with zero would leave NaN where it was.
        """
        return -self.shown.to(device, torch.int8)


def _as_integers(values: Tensor) -> Tensor:
    """The same memory as integers."""
    return values.view(_INTEGERS[values.itemsize])
