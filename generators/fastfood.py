"""Fastfood: a projection in O(rows log dof), by Hadamard transforms.

With n the power of two from dof on, rows are cut into blocks of n, and block b of G is

    H D Π H B / √(rows n),    restricted to the first dof columns,

with H the n x n Hadamard matrix (±1), B a diagonal of signs, Π a permutation, D a diagonal of normal numbers (Le,
Sarlós and Smola, "Fastfood", ICML 2013, without the diagonal S). Columns have norm 1 in expectation. The structured
basis of Li et al., "Measuring the intrinsic dimension of objective landscapes", ICLR 2018.

Cost: O(rows log dof) time. Kept between calls: the diagonals and permutations, up to `CACHE_BYTES`.
"""

from functools import lru_cache
from typing import NamedTuple, final

import torch
from torch import Tensor

from lincon.counter import bits, key, normals, signs
from lincon.generator import Generator, chunks
from lincon.maps.permutation import Permutation
from lincon.maps.registry import register

_SIGN, _NORMAL, _PERMUTATION = 30, 31, 32
CACHE_BYTES = 64 << 20
"""Diagonals and permutations are kept up to this size (64 MiB a generator and device)."""


class _Block(NamedTuple):
    """B and D, (blocks, n) float32, and Π and its inverse, (blocks, n) int64."""

    sign: Tensor
    normal: Tensor
    forward: Tensor
    backward: Tensor


@register
@final
class Fastfood(Generator):
    """Stacked Hadamard blocks."""

    name = "fastfood"

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, dof, seed)
        self.size = 1 << (dof - 1).bit_length()
        self.grain = min(rows, self.size)
        self.scale = (rows * self.size) ** -0.5
        self._cache: dict[tuple[int, torch.device], _Block] = {}

    def energy(self, start: int, stop: int) -> float:
        return self.dof / self.rows

    def _block(self, number: int, device: torch.device) -> _Block:
        if (number, device) in self._cache:
            return self._cache[number, device]
        own = torch.arange(self.size, device=device)
        counter = number * self.size + own
        permutation = Permutation(self.size, key(self.seed, _PERMUTATION, number))
        forward = torch.cat([permutation(own[low:high]) for low, high in chunks(0, self.size)])
        sign = signs(bits(key(self.seed, _SIGN), counter), torch.float32)
        block = _Block(
            sign, normals(bits(key(self.seed, _NORMAL), counter)), forward, _inverse(forward)
        )
        if self.rows * 24 <= CACHE_BYTES:
            self._cache[number, device] = block
        return block

    def _write(self, out: Tensor, free: Tensor, start: int) -> None:
        padded = free.new_zeros(self.size, dtype=torch.promote_types(out.dtype, torch.float32))
        padded[: self.dof] = free
        for number, low, high in self._ranges(start, start + len(out)):
            block = self._block(number, out.device)
            mixed = hadamard(padded * block.sign)[block.forward] * block.normal
            first = number * self.size
            out[low - start : high - start] = (
                hadamard(mixed)[low - first : high - first] * self.scale
            )

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        for number, low, high in self._ranges(start, start + len(grad)):
            block, first = self._block(number, out.device), number * self.size
            padded = out.new_zeros(self.size)
            padded[low - first : high - first] = grad[low - start : high - start]
            mixed = (hadamard(padded) * block.normal)[block.backward]
            out += (hadamard(mixed) * block.sign)[: self.dof] * self.scale

    def _ranges(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(block, low, high) of the blocks that rows [start, stop) cross."""
        first, last = start // self.size, -(-stop // self.size)
        return [
            (b, max(start, b * self.size), min(stop, (b + 1) * self.size))
            for b in range(first, last)
        ]


def hadamard(x: Tensor) -> Tensor:
    """The unnormalised Walsh-Hadamard transform of (n,), n a power of two, as products with small factors.

    H of 2^(a+b) is the Kronecker product of those of 2^a and 2^b, so factors of at most 128 are multiplied along axes.
    """
    n, done = len(x), 1
    while done < n:
        factor = min(128, n // done)
        x = torch.einsum(
            "ij,ajb->aib", _factor(factor, x.dtype, x.device), x.view(-1, factor, done)
        ).reshape(-1)
        done *= factor
    return x


@lru_cache
def _factor(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """H of a small power of two: (-1)^(number of common bits)."""
    number = torch.arange(size, device=device)
    common = number[:, None] & number
    parity = torch.zeros_like(common)
    while bool(common.any()):
        parity ^= common & 1
        common = common >> 1
    return (1 - 2 * parity).to(dtype)


def _inverse(permutation: Tensor) -> Tensor:
    numbers = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).scatter_(0, permutation, numbers)
