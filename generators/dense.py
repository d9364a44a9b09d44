"""Dense: a dense random projection with unit-norm columns, regenerated block by block.

G[i, j] = ε(i, j) / ‖column j‖, with ε Rademacher (±1, so the norm is √rows) or normal (one of 4096
equally likely quantiles of N(0, 1), rounded to multiples of 2^-12). The random basis of Li et al.,
"Measuring the intrinsic dimension of objective landscapes", ICLR 2018; with W₀ (`offset=True`) it
is theirs.

Cost: O(rows dof) time. G is kept where it is small: up to `STORED_BYTES`, or, where no kernel makes
it faster than memory is read, up to `CACHE_BYTES`. Else it takes the memory of one block.
"""

from functools import cache, cached_property
from typing import Any, final

import torch
from torch import Tensor

from lincon.counter import bits, key, normals
from lincon.errors import LinconError
from lincon.generator import chunks
from lincon.generators._projection import Projection
from lincon.generators.one_nonzero import Compiled
from lincon.kernels import Loop, as_bits
from lincon.maps.per_device import per_device
from lincon.maps.registry import register
from lincon.shapes import Float

_STREAM = 1
BLOCK = 1 << 20
"""Entries regenerated at a time."""
CACHE_BYTES = 64 << 20
"""G is kept between calls up to this size (64 MiB a generator and device) where no kernel runs."""
STORED_BYTES = 1 << 22
"""G is kept up to this size in any case: the processor's own memory holds it."""


@register
@final
class Dense(Compiled, Projection):
    """Dense random projection: G[i, j] = ε(i, j) / ‖column j‖ (Li et al., ICLR 2018).

    Cost: O(rows dof).

    Args:
        rows, dof, seed: as every generator.
        entries: "rademacher" or "normal", the distribution of ε.

    >>> Dense(rows=4, dof=2, seed=0).dense()
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000],
            [ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """

    name = "dense"

    def __init__(self, rows: int, dof: int, seed: int = 0, *, entries: str = "rademacher") -> None:
        super().__init__(rows, dof, seed)
        if entries not in ("rademacher", "normal"):
            raise LinconError(f"dense: entries={entries!r}; give 'rademacher' or 'normal'.")
        self.entries = entries

    def options(self) -> dict[str, Any]:
        return {"entries": self.entries}

    def work(self, rows: int) -> float:
        return rows * self.dof

    def _draw(self, start: int, stop: int, device: torch.device) -> Tensor:
        """ε of rows [start, stop): (stop - start, dof) float32."""
        per_word = 64 if self.entries == "rademacher" else 4
        words = -(-self.dof // per_word)
        counter = torch.arange(start * words, stop * words, device=device)
        random = bits(key(self.seed, _STREAM), counter)
        if self.entries == "rademacher":
            drawn = _octets(device).index_select(0, random.view(torch.uint8).int())
        else:
            drawn = normals(random.view(torch.int16))
        return drawn.view(stop - start, words * per_word)[:, : self.dof]

    def _loop_on(self, device: torch.device) -> Loop | None:
        is_small = self.rows * self.dof * 4 <= min(STORED_BYTES, CACHE_BYTES)
        drawn = device.type == "cpu" and self.entries == "rademacher" and not is_small
        return self._loop if drawn else None

    @cached_property
    def _loop(self) -> Loop:
        more = (as_bits(self.rows**-0.5),)
        return Loop("rademacher", self.dof, key=key(self.seed, _STREAM), more=more, work=self.dof)

    @per_device
    def _kept(self, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "rows dof"]:
        """All of G."""
        rows = [self._draw(*block, device) for block in self._blocks(0, self.rows)]
        return torch.cat(rows).to(dtype) / self._norms.to(device, dtype)

    def _blocks(self, start: int, stop: int) -> list[tuple[int, int]]:
        return list(chunks(start, stop, max(1, BLOCK // self.dof)))

    @cached_property
    def _norms(self) -> Tensor:
        """Column norms of ε, (dof,) float64, from exact integers."""
        if self.entries == "rademacher":
            return torch.full((self.dof,), self.rows**0.5, dtype=torch.float64)
        squares = torch.zeros(self.dof, dtype=torch.int64)
        for low, high in self._blocks(0, self.rows):
            integers = (self._draw(low, high, squares.device) * 4096).long()
            squares += integers.square_().sum(0)
        return squares.double().sqrt() / 4096

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        wide = torch.promote_types(out.dtype, torch.float32)
        if self._is_kept:
            rows = self._kept(out.device, wide)[start : start + len(out)]
            product = torch.mv(rows, prepared.to(wide), out=out if out.dtype == wide else None)
            if out.dtype != wide:
                out.copy_(product)
            return
        scaled = prepared.to(wide) / self._norms.to(out.device, wide)
        for low, high in self._blocks(start, start + len(out)):
            block = self._draw(low, high, out.device).to(wide)
            out[low - start : high - start] = block @ scaled

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        if self._is_kept:
            rows = self._kept(out.device, out.dtype)[start : start + len(grad)]
            out.addmv_(rows.T, grad.to(out.dtype))
            return
        total = torch.zeros_like(out)
        for low, high in self._blocks(start, start + len(grad)):
            block = self._draw(low, high, out.device).to(out.dtype)
            total += grad[low - start : high - start].to(out.dtype) @ block
        out += total / self._norms.to(out.device, out.dtype)

    @property
    def _is_kept(self) -> bool:
        return self.rows * self.dof * 4 <= CACHE_BYTES

    def _rows(self, start: int, stop: int) -> Tensor:
        return self._draw(start, stop, torch.device("cpu")) * self._norms.reciprocal()

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        if weights is None:
            return torch.ones(self.dof, dtype=torch.float64)
        total = torch.zeros(self.dof, dtype=torch.float64)
        for low, high in self._blocks(0, self.rows):
            squares = self._draw(low, high, total.device).double().square_()
            total += weights[low:high].double().cpu() @ squares
        return total / self._norms**2


@cache
def _octets(device: torch.device) -> Tensor:
    """The eight signs of each byte: (256, 8) float32."""
    from einops import rearrange

    byte = rearrange(torch.arange(256, device=device), "byte -> byte 1")
    bit = byte >> torch.arange(8, device=device) & 1
    return (1 - 2 * bit).float()
