"""Fastfood: a projection in O(rows log dof), by Hadamard transforms.

With n the power of two from dof on, rows are cut into blocks of n, and block b of G is

    H D Π H B / √(rows n),    restricted to the first dof columns,

with H the n x n Hadamard matrix (±1), B a diagonal of signs, Π a permutation, D a diagonal of
normal numbers (Le, Sarlós and Smola, "Fastfood", ICML 2013, without the diagonal S). Columns have
norm 1 in expectation. The structured basis of Li et al., "Measuring the intrinsic dimension of
objective landscapes", ICLR 2018.

Cost: O(rows log dof) time. Kept between calls: the diagonals and permutations, up to `CACHE_BYTES`.

When to use: for random subspaces of many dimensions (intrinsic dimension, with an offset), where
`dense` is too slow. Not with ``materialize="layer"`` at many DoF.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, final

import torch
from torch import Tensor

from lincon.counter import bits, key, normals, signs
from lincon.generator import CHUNK, chunks
from lincon.generators._projection import Projection
from lincon.maps.per_device import per_device
from lincon.maps.permutation import Permutation
from lincon.maps.registry import register
from lincon.shapes import Float

_SIGN_STREAM, _NORMAL_STREAM, _PERMUTATION_STREAM = 30, 31, 32
CACHE_BYTES = 64 << 20
"""Diagonals and permutations are kept up to this size (64 MiB a generator and device)."""
BYTES_PER_ROW = 24
"""What a row takes in them: two of float32 and two of int64."""
LARGEST_FACTOR = 32
"""The largest Hadamard matrix that is multiplied as a whole."""


class _Blocks(NamedTuple):
    """B and D of some blocks, (blocks, n) float32, and Π and its inverse, (blocks, n) int64."""

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

    def work(self, rows: int) -> float:
        blocks = -(-rows // self.size)
        return blocks * self.size * 2 * (self.size.bit_length() - 1 or 1)

    def _blocks(self, device: torch.device, low: int, high: int) -> _Blocks:
        """Blocks [low, high), of all blocks if these are not too large to be kept."""
        if self.rows * BYTES_PER_ROW > CACHE_BYTES:
            return self._drawn(device, low, high)
        return _Blocks(*(each[low:high] for each in self._all_blocks(device)))

    @per_device
    def _all_blocks(self, device: torch.device) -> _Blocks:
        return self._drawn(device, 0, -(-self.rows // self.size))

    def _drawn(self, device: torch.device, low: int, high: int) -> _Blocks:
        position = torch.arange(self.size, device=device)
        counter = torch.arange(low, high, device=device)[:, None] * self.size + position
        sign = signs(bits(key(self.seed, _SIGN_STREAM), counter), torch.float32)
        normal = normals(bits(key(self.seed, _NORMAL_STREAM), counter))
        forward = torch.empty_like(counter)
        for number, images in enumerate(forward, low):
            permutation = Permutation(self.size, key(self.seed, _PERMUTATION_STREAM, number))
            for first, last in chunks(0, self.size):
                images[first:last] = permutation(position[first:last])
        backward = torch.empty_like(forward).scatter_(1, forward, position.expand_as(forward))
        return _Blocks(sign, normal, forward, backward)

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        wide = torch.promote_types(out.dtype, torch.float32)
        padded = prepared.new_zeros(self.size, dtype=wide)
        padded[: self.dof] = prepared
        padded *= self.scale
        for blocks, low, high in self._ranges(start, start + len(out), out.device):
            mixed = hadamard(padded * blocks.sign).gather(1, blocks.forward) * blocks.normal
            first = start + low
            rows = hadamard(mixed).view(-1)[first % self.size :][: high - low]
            out[low:high] = rows

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        for blocks, low, high in self._ranges(start, start + len(grad), out.device):
            padded = out.new_zeros(blocks.sign.shape)
            padded.view(-1)[(start + low) % self.size :][: high - low] = grad[low:high]
            mixed = (hadamard(padded) * blocks.normal).gather(1, blocks.backward)
            out += (hadamard(mixed) * blocks.sign).sum(0)[: self.dof] * self.scale

    def _ranges(
        self, start: int, stop: int, device: torch.device
    ) -> Iterator[tuple[_Blocks, int, int]]:
        """The blocks that rows [start, stop) cross, some at a time, and their rows from ``start``."""
        of = start // self.size, -(-stop // self.size)
        for low, high in chunks(*of, max(1, CHUNK // self.size)):
            first, last = max(start, low * self.size), min(stop, high * self.size)
            yield self._blocks(device, low, high), first - start, last - start


def hadamard(x: Float[Tensor, "... n"]) -> Float[Tensor, "... n"]:
    """The unnormalised Walsh-Hadamard transform, n a power of two, as products with small factors.

    H of 2^(a+b) is the Kronecker product of those of 2^a and 2^b, so it is applied axis by axis.

    >>> hadamard(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor([10., -2., -4.,  0.])
    """
    shape, done = x.shape, 1
    while done < shape[-1]:
        size = min(LARGEST_FACTOR, shape[-1] // done)
        factor = _factor(size, x.dtype, x.device)
        # The first is one product for all: a factor is its own transpose.
        x = x.reshape(-1, size) @ factor if done == 1 else factor @ x.view(-1, size, done)
        done *= size
    return x.view(shape)


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
