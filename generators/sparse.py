"""Sparse: a very sparse random projection of density about 1/√rows, columns of unit norm.

The rows are cut into c = ⌈√rows⌉ strata of equal height; column j has one nonzero ±1/√c in each
stratum, at a place drawn uniformly. So the density is that of Li, Hastie and Church ("Very sparse
random projections", KDD 2006), every column has norm 1 exactly, and a range of rows touches only
the strata it crosses.

Cost: O(dof √rows) per unpack or adjoint, in either direction a gather or an addition in a fixed
order.

When to use: for random subspaces where `dense` is too slow and an unstructured G is wanted.
"""

from dataclasses import replace
from functools import cached_property
from math import ceil, isqrt
from typing import final

import torch
from torch import Tensor

from lincon.counter import below, bits, key, signs
from lincon.generator import CHUNK, chunks
from lincon.generators._projection import Projection
from lincon.generators.one_nonzero import Compiled
from lincon.kernels import Loop, as_bits, kernel_for
from lincon.maps.per_device import per_device
from lincon.maps.registry import register
from lincon.maps.scatter import add_at
from lincon.shapes import Float, Int

_STREAM = 4
CACHE_BYTES = 64 << 20
"""Positions and signs are kept between calls up to this size (64 MiB a generator and device)."""


@register
@final
class Sparse(Compiled, Projection):
    """Very sparse random projection with unit-norm columns (Li, Hastie and Church, KDD 2006).

    G[i, j] = ±1/√c for one row i of each of c = ⌈√rows⌉ strata of rows, else 0. Cost: O(dof √rows).

    >>> Sparse(rows=4, dof=3, seed=0).sparse().toarray()
    array([[ 0.70710678,  0.70710678, -0.70710678],
           [ 0.        ,  0.        ,  0.        ],
           [ 0.        ,  0.        ,  0.        ],
           [ 0.70710678,  0.70710678, -0.70710678]])
    """

    name = "sparse"

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, dof, seed)
        self.strata = isqrt(rows - 1) + 1

    def work(self, rows: int) -> float:
        low, high = self._touched(0, rows)
        return (high - low) * self.dof

    def _loop_on(self, device: torch.device) -> Loop | None:
        if device.type != "cpu":
            return None
        fits = self.strata * self.dof * 4 <= CACHE_BYTES and kernel_for(device) is not None
        return self._tabled(device) if fits else self._drawing

    @cached_property
    def _drawing(self) -> Loop:
        more = as_bits(self.strata**-0.5), self.strata, self.rows
        work = max(1, self.strata * self.dof // self.rows)
        stream, empty = key(self.seed, _STREAM), torch.empty(0, dtype=torch.int32)
        return Loop("strata", self.dof, key=stream, more=more, work=work, drawn=empty)

    @per_device
    def _tabled(self, device: torch.device) -> Loop:
        return replace(self._drawing, drawn=self._packed(device))

    def _packed(self, device: torch.device) -> Int[Tensor, " nonzeros"]:
        """Twice the place of each nonzero in its stratum, and one more for -1."""
        packed = []
        for low, high in self._blocks(0, self.strata):
            rows, sign = self._draw(low, high, device)
            first = torch.arange(low, high, device=device) * self.rows // self.strata
            packed.append(((rows - first[:, None]) * 2 + (sign < 0)).int())
        return torch.cat(packed).view(-1)

    def _draw(self, low: int, high: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and signs of the nonzeros in strata [low, high): two tensors (high - low, dof)."""
        from einops import rearrange

        stratum = rearrange(torch.arange(low, high, device=device), "stratum -> stratum 1")
        column = torch.arange(self.dof, device=device)
        random = bits(key(self.seed, _STREAM), stratum * self.dof + column)
        first = stratum * self.rows // self.strata
        height = (stratum + 1) * self.rows // self.strata - first
        return first + below(random, height), signs(random)

    def _nonzeros(self, low: int, high: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """What `_draw` returns, from the table of all if that is not too large to be kept."""
        if self.strata * self.dof * 5 > CACHE_BYTES:
            return self._draw(low, high, device)
        rows, sign = self._all_nonzeros(device)
        return rows[low:high], sign[low:high]

    @per_device
    def _all_nonzeros(self, device: torch.device) -> tuple[Tensor, Tensor]:
        rows, sign = [], []
        for low, high in self._blocks(0, self.strata):
            block_rows, block_sign = self._draw(low, high, device)
            rows.append(block_rows.to(torch.int32))
            sign.append(block_sign)
        return torch.cat(rows), torch.cat(sign)

    def _blocks(self, low: int, high: int) -> list[tuple[int, int]]:
        return list(chunks(low, high, max(1, CHUNK // self.dof)))

    def _touched(self, start: int, stop: int) -> tuple[int, int]:
        """The strata that rows [start, stop) cross."""
        low = start * self.strata // self.rows
        high = ceil(stop * self.strata / self.rows)
        return max(0, low - 1), min(self.strata, high + 1)

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        dtype = torch.promote_types(out.dtype, torch.float32)
        wide = torch.zeros(len(out), dtype=dtype, device=out.device)
        scaled = prepared.to(dtype) / self.strata**0.5
        for low, high in self._blocks(*self._touched(start, start + len(out))):
            rows, sign = self._nonzeros(low, high, out.device)
            rows, values = rows.reshape(-1) - start, (scaled * sign).reshape(-1)
            if start or len(out) < self.rows:
                inside = (rows >= 0) & (rows < len(out))
                rows, values = rows[inside], values[inside]
            add_at(wide, rows, values)
        out.copy_(wide)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        outside = len(grad)
        padded = torch.cat([grad.to(out.dtype), grad.new_zeros(1, dtype=out.dtype)])
        for low, high in self._blocks(*self._touched(start, start + len(grad))):
            rows, sign = self._nonzeros(low, high, out.device)
            rows = rows - start
            if start or len(grad) < self.rows:
                rows = torch.where((rows >= 0) & (rows < len(grad)), rows, outside)
            out += (padded[rows] * sign).sum(0) / self.strata**0.5

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        if weights is None:
            return torch.ones(self.dof, dtype=torch.float64)
        total = torch.zeros(self.dof, dtype=torch.float64)
        for low, high in self._blocks(0, self.strata):
            rows, _ = self._nonzeros(low, high, total.device)
            total += weights.double().cpu()[rows].sum(0)
        return total / self.strata
