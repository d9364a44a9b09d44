"""Fastfood: a projection in O(rows log dof), by Hadamard transforms.

With n the power of two from dof on, rows are cut into blocks of n, and block b of G is

    H D Π H B / √(rows n),    restricted to the first dof columns,

with H the n x n Hadamard matrix (±1), B a diagonal of signs, Π a permutation, D a diagonal of
normal numbers (Le, Sarlós and Smola, "Fastfood", ICML 2013, without the diagonal S). Columns have
norm 1 in expectation. The structured basis of Li et al., "Measuring the intrinsic dimension of
objective landscapes", ICLR 2018.

Cost: O(rows log dof) time. Kept between calls: the diagonals and permutations, up to `CACHE_BYTES`.
"""

from functools import lru_cache
from typing import NamedTuple, final

import torch
from torch import Tensor

from lincon.counter import bits, key, normals, signs
from lincon.generator import chunks
from lincon.generators._projection import Projection
from lincon.maps.per_device import per_device
from lincon.maps.permutation import Permutation
from lincon.maps.registry import register
from lincon.shapes import Float, Int

_SIGN, _NORMAL, _PERMUTATION = 30, 31, 32
CACHE_BYTES = 64 << 20
"""Diagonals and permutations are kept up to this size (64 MiB a generator and device)."""
BYTES_PER_ROW = 24
"""What a row takes in them: two of float32 and two of int64."""
LARGEST_FACTOR = 128
"""The largest Hadamard matrix that is multiplied as a whole."""


class _Block(NamedTuple):
    """B and D of one block, (n,) float32, and Π and its inverse, (n,) int64."""

    sign: Tensor
    normal: Tensor
    forward: Tensor
    backward: Tensor


@register
@final
class Fastfood(Projection):
    """Stacked blocks of Hadamard transforms, H D Π H B / √(rows n).

    After Le, Sarlós and Smola, ICML 2013. Cost: O(rows log dof).

    >>> Fastfood(rows=4, dof=2, seed=0).dense()
    tensor([[-0.0943,  0.0626],
            [ 0.0626, -0.0943],
            [-0.0473,  0.9020],
            [ 0.9020, -0.0473]], dtype=torch.float64)
    """

    name = "fastfood"
    version = 2

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, dof, seed)
        self.size = 1 << (dof - 1).bit_length()
        self.grain = min(rows, self.size)
        self.scale = (rows * self.size) ** -0.5

    def _block(self, device: torch.device, number: int) -> _Block:
        if self.rows * BYTES_PER_ROW <= CACHE_BYTES:
            return self._kept_block(device, number)
        return self._drawn_block(device, number)

    @per_device
    def _kept_block(self, device: torch.device, number: int) -> _Block:
        return self._drawn_block(device, number)

    def _drawn_block(self, device: torch.device, number: int) -> _Block:
        position = torch.arange(self.size, device=device)
        counter = number * self.size + position
        sign = signs(bits(key(self.seed, _SIGN), counter), torch.float32)
        normal = normals(bits(key(self.seed, _NORMAL), counter))
        permutation = Permutation(self.size, key(self.seed, _PERMUTATION, number))
        images = [permutation(position[low:high]) for low, high in chunks(0, self.size)]
        forward = torch.cat(images)
        return _Block(sign, normal, forward, _inverse(forward))

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        wide = torch.promote_types(out.dtype, torch.float32)
        padded = prepared.new_zeros(self.size, dtype=wide)
        padded[: self.dof] = prepared
        for number, low, high in self._ranges(start, start + len(out)):
            block, first = self._block(out.device, number), number * self.size
            mixed = hadamard(padded * block.sign)[block.forward] * block.normal
            rows = hadamard(mixed)[low - first : high - first]
            out[low - start : high - start] = rows * self.scale

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        for number, low, high in self._ranges(start, start + len(grad)):
            block, first = self._block(out.device, number), number * self.size
            padded = out.new_zeros(self.size)
            padded[low - first : high - first] = grad[low - start : high - start]
            mixed = (hadamard(padded) * block.normal)[block.backward]
            out += (hadamard(mixed) * block.sign)[: self.dof] * self.scale

    def _ranges(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(block, low, high) of the blocks that rows [start, stop) cross."""
        ranges = []
        for number in range(start // self.size, -(-stop // self.size)):
            first = number * self.size
            ranges.append((number, max(start, first), min(stop, first + self.size)))
        return ranges


def hadamard(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The unnormalised Walsh-Hadamard transform, n a power of two, as products with small factors.

    H of 2^(a+b) is the Kronecker product of those of 2^a and 2^b, so it is applied axis by axis.

    >>> hadamard(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([10., -2., -4.,  0.])
    """
    from einops import einsum

    n, done = len(x), 1
    while done < n:
        size = min(LARGEST_FACTOR, n // done)
        factor = _factor(size, x.dtype, x.device)
        axes = x.view(-1, size, done)
        x = einsum(factor, axes, "row column, high column low -> high row low").reshape(-1)
        done *= size
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


def _inverse(permutation: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    numbers = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).scatter_(0, permutation, numbers)
