"""Sparse: a very sparse random projection of density about 1/√rows, columns of unit norm.

The rows are cut into c = ⌈√rows⌉ strata of equal height; column j has one nonzero ±1/√c in each stratum, at a place
drawn uniformly. So the density is that of Li, Hastie and Church ("Very sparse random projections", KDD 2006), every
column has norm 1 exactly, and a range of rows touches only the strata it crosses.

Cost: O(dof √rows) per unpack or adjoint, in either direction a gather or an addition in a fixed order.
"""

from math import ceil, isqrt
from typing import final

import torch
from torch import Tensor

from lincon.counter import below, bits, key, signs
from lincon.generator import CHUNK, Generator, chunks
from lincon.generators._single import add_at
from lincon.maps.registry import register

_STREAM = 4
CACHE_BYTES = 64 << 20
"""Positions and signs are kept between calls up to this size (64 MiB a generator and device)."""


@register
@final
class Sparse(Generator):
    """Very sparse random projection with unit-norm columns."""

    name = "sparse"

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, dof, seed)
        self.strata = isqrt(rows - 1) + 1
        self._cache: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def _draw(self, low: int, high: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows and signs of the nonzeros in strata [low, high): two tensors (high - low, dof)."""
        stratum = torch.arange(low, high, device=device)[:, None]
        column = torch.arange(self.dof, device=device)
        random = bits(key(self.seed, _STREAM), stratum * self.dof + column)
        first = stratum * self.rows // self.strata
        height = (stratum + 1) * self.rows // self.strata - first
        return first + below(random, height), signs(random)

    def _nonzeros(self, low: int, high: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.strata * self.dof * 5 > CACHE_BYTES:
            return self._draw(low, high, device)
        if device not in self._cache:
            parts = [self._draw(a, b, device) for a, b in self._blocks(0, self.strata)]
            self._cache[device] = (
                torch.cat([r.to(torch.int32) for r, _ in parts]),
                torch.cat([s for _, s in parts]),
            )
        rows, sign = self._cache[device]
        return rows[low:high], sign[low:high]

    def _blocks(self, low: int, high: int) -> list[tuple[int, int]]:
        return list(chunks(low, high, max(1, CHUNK // self.dof)))

    def _touched(self, start: int, stop: int) -> tuple[int, int]:
        """The strata that rows [start, stop) cross."""
        low = start * self.strata // self.rows
        high = ceil(stop * self.strata / self.rows)
        return max(0, low - 1), min(self.strata, high + 1)

    def _write(self, out: Tensor, free: Tensor, start: int) -> None:
        wide = torch.zeros(
            len(out), dtype=torch.promote_types(out.dtype, torch.float32), device=out.device
        )
        scaled = free.to(wide.dtype) / self.strata**0.5
        for low, high in self._blocks(*self._touched(start, start + len(out))):
            rows, sign = self._nonzeros(low, high, out.device)
            rows, values = rows.reshape(-1) - start, (scaled * sign).reshape(-1)
            if start or len(out) < self.rows:
                inside = (rows >= 0) & (rows < len(out))
                rows, values = rows[inside], values[inside]
            add_at(wide, rows, values)
        out.copy_(wide)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        padded = torch.cat([grad.to(out.dtype), grad.new_zeros(1, dtype=out.dtype)])
        for low, high in self._blocks(*self._touched(start, start + len(grad))):
            rows, sign = self._nonzeros(low, high, out.device)
            local = rows - start
            if start or len(grad) < self.rows:
                local = torch.where((local >= 0) & (local < len(grad)), local, len(grad))
            out += (padded[local] * sign).sum(0) / self.strata**0.5

    def energy(self, start: int, stop: int) -> float:
        return self.dof / self.rows

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        if weights is None:
            return torch.ones(self.dof, dtype=torch.float64)
        total = torch.zeros(self.dof, dtype=torch.float64)
        for low, high in self._blocks(0, self.strata):
            rows, _ = self._nonzeros(low, high, total.device)
            total += weights.double().cpu()[rows].sum(0)
        return total / self.strata
