"""Mask: another generator with some of its rows zero; pruning of single weights, which the free vector outlives.

G[i, j] = m[i] H[i, j] with H the inner generator and m 0 or 1. Weights that are pruned stay zero however W is trained.
A free number that no weight reads any more is one degree of freedom less, but not before: sparsity of Ŵ and DoF are two
things. Cost: that of H. The file stores the mask, entropy-coded, and H by its spec.
"""

from typing import Any, final

import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator, Segments
from lincon.generators._around import Around
from lincon.generators.part import Part
from lincon.maps.registry import register


@register
@final
class Mask(Around):
    """Another generator with some of its rows zero.

    Args:
        rows, dof, seed: those of ``inner``.
        inner: a generator, or its spec.
        shown: (rows,) bool, false where a row is zero.
        tables: of ``inner``, by their names after "inner_", where it comes as a spec.

    Raises:
        LinconError: rows or dof that are not those of ``inner``, or a mask of another shape.
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
            raise LinconError(f"mask: {self.inner!r} has not {rows} rows and {dof} dof.")
        if not isinstance(shown, Tensor):
            raise LinconError(
                f"mask: shown must be a tensor of bool, got a {type(shown).__name__}."
            )
        if shown.shape != (rows,) or shown.dtype != torch.bool:
            raise LinconError(
                f"mask: shown must be bool of shape ({rows},), got {tuple(shown.shape)} {shown.dtype}."
            )
        self.shown = shown.detach().cpu()
        self.diagonal_gram = self.inner.disjoint
        self._placed: dict[torch.device, Tensor] = {}

    def own_tables(self) -> dict[str, Tensor]:
        return {"shown": self.shown}

    @classmethod
    def of(cls, inner: Generator, shown: Tensor) -> Generator:
        """``inner`` with zero rows where ``shown`` is false, and where it had zero rows already; never deeper nested.

        Of a part it is the same part of the masked generator.
        """
        if isinstance(inner, Mask):
            return cls.of(inner.inner, inner.shown & shown.cpu())
        if isinstance(inner, Part):
            return inner.masked(cls.of, shown.cpu())
        return cls(inner.rows, inner.dof, inner.seed, inner=inner, shown=shown)

    def write(self, out: Tensor, prepared: Tensor, start: int, segments: Segments = ()) -> None:
        self.inner.write(out, prepared, start, segments)
        _bits(out).bitwise_and_(self._as_bits(out.device, start, len(out)))

    def accumulate(self, out: Tensor, grad: Tensor, start: int, segments: Segments = ()) -> None:
        shown = _bits(grad).bitwise_and(self._as_bits(grad.device, start, len(grad)))
        self.inner.accumulate(out, shown.view(grad.dtype), start, segments)

    def offset(self) -> Tensor | None:
        inner = self.inner.offset()
        return None if inner is None else inner * self.shown

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        shown = self.shown.double()
        return self.inner.gram_diagonal(
            shown if weights is None else shown * weights.double().cpu()
        )

    def _as_bits(self, device: torch.device, start: int, length: int) -> Tensor:
        """Of rows that are shown all bits, (length,) int8: of a product, NaN times zero would be left."""
        if device not in self._placed:
            self._placed[device] = -self.shown.to(device, torch.int8)
        return self._placed[device][start : start + length]


def _bits(values: Tensor) -> Tensor:
    """The same memory as integers."""
    return values.view(
        {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.itemsize]
    )
