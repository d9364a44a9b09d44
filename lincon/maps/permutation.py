"""Keyed bijections of [0, n) that are computed, not stored, in both directions.

A number is written as left * b + right with left < a, right < b = 2**h near sqrt(n) and n <= a * b,
and goes through rounds of an alternating Feistel network with modular addition: left += F(right)
mod a, then right += F(left) mod b (Black and Rogaway, "Ciphers with arbitrary finite domains",
2002). Results in [n, a * b) go through the network again until they fall below n. Since
a * b < n + b, that happens to about one in sqrt(n).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lincon.counter import below, bits, key
from lincon.shapes import Int

ROUNDS = 6


@dataclass(frozen=True)
class Permutation:
    """The bijection of [0, size) that belongs to a key; ``size`` < 2**62.

    >>> import torch
    >>> permutation = Permutation(size=5, key=7)
    >>> permutation(torch.arange(5))
    tensor([1, 4, 0, 3, 2])
    >>> permutation.inverse(permutation(torch.arange(5)))
    tensor([0, 1, 2, 3, 4])
    """

    size: int
    key: int

    def __call__(self, x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Images of ``x``, int64 with values in [0, size)."""
        return self._walk(x, self._forward)

    def inverse(self, y: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The x with ``self(x) == y``."""
        return self._walk(y, self._backward)

    @property
    def _radix(self) -> tuple[int, int, int]:
        """a, b and h of the module's docstring."""
        h = (self.size - 1).bit_length() // 2
        return -(-self.size // (1 << h)), 1 << h, h

    def _walk(self, x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
        image = step(x.reshape(-1))
        outside = (image >= self.size).nonzero().squeeze(1)
        while len(outside):
            moved = step(image[outside])
            image[outside] = moved
            outside = outside[moved >= self.size]
        return image.view(x.shape)

    def _forward(self, x: Tensor) -> Tensor:
        a, b, h = self._radix
        left, right = x >> h, x & (b - 1)
        for round_ in range(0, ROUNDS, 2):
            left = _add(left, self._noise(round_, right, a), a)
            right = _add(right, self._noise(round_ + 1, left, b), b)
        return (left << h).add_(right)

    def _backward(self, x: Tensor) -> Tensor:
        a, b, h = self._radix
        left, right = x >> h, x & (b - 1)
        for round_ in reversed(range(0, ROUNDS, 2)):
            right = _subtract(right, self._noise(round_ + 1, left, b), b)
            left = _subtract(left, self._noise(round_, right, a), a)
        return (left << h).add_(right)

    def _noise(self, round_: int, half: Tensor, bound: int) -> Tensor:
        return below(bits(key(self.key, round_), half), bound)


def _add(x: Tensor, y: Tensor, modulus: int) -> Tensor:
    """x + y mod modulus, both in [0, modulus)."""
    total = x.add(y).sub_(modulus)
    return total.add_((total >> 63).bitwise_and_(modulus))


def _subtract(x: Tensor, y: Tensor, modulus: int) -> Tensor:
    """x - y mod modulus, both in [0, modulus)."""
    difference = x - y
    return difference.add_((difference >> 63).bitwise_and_(modulus))
