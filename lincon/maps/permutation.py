"""Keyed bijections of [0, n) that are computed, not stored, in both directions.

A number is written as left * b + right with left < a, right < b = 2**h near sqrt(n) and n <= a * b,
and goes through rounds of an alternating Feistel network with modular addition: left += F(right)
mod a, then right += F(left) mod b (Black and Rogaway, "Ciphers with arbitrary finite domains",
2002). Results in [n, a * b) go through the network again until they fall below n. Since
a * b < n + b, that happens to about one in sqrt(n).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lincon.counter import bits, mix, word_below
from lincon.shapes import Int, Int64

ROUNDS = 6


@dataclass(frozen=True)
class Permutation:
    """The bijection of [0, size) that belongs to a key; ``size`` < 2**62.

    >>> permutation = Permutation(size=5, key=7)
    >>> permutation(torch.arange(5))
    tensor([4, 0, 1, 3, 2])
    >>> permutation.inverse(permutation(torch.arange(5)))
    tensor([0, 1, 2, 3, 4])
    """

    size: int
    key: int

    def __call__(self, x: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Images of ``x``, int64 with values in [0, size)."""
        return images(x, self.size, self._round_keys(x.device))

    def inverse(self, y: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The x with ``self(x) == y``."""
        return images(y, self.size, self._round_keys(y.device), backward=True)

    def _round_keys(self, device: torch.device) -> Int64[Tensor, " rounds"]:
        return bits(self.key, torch.arange(ROUNDS, device=device))


def images(
    x: Int[Tensor, "*shape"],
    size: int,
    round_keys: Int64[Tensor, "rounds ..."],
    backward: bool = False,
) -> Int[Tensor, "*shape"]:
    """Images of ``x`` under the bijection that belongs to round keys, or where they come from.

    Args:
        x: int64 in [0, size).
        size: of the domain.
        round_keys: (6,), or (6, len(x)) if every x has a bijection of its own.
        backward: whether the inverse is asked for.
    """
    step = _backward if backward else _forward
    flat = x.reshape(-1)
    keys = round_keys.view(ROUNDS, -1)  # (6, 1) or one column for each x
    image = step(flat, size, keys)
    outside = (image >= size).nonzero().squeeze(1)
    while len(outside):
        moved = step(image[outside], size, keys if keys.shape[1] == 1 else keys[:, outside])
        image[outside] = moved
        outside = outside[moved >= size]
    return image.view(x.shape)


def radix(size: int) -> tuple[int, int, int]:
    """a, b and h of the module's docstring."""
    h = (size - 1).bit_length() // 2
    return -(-size // (1 << h)), 1 << h, h


def _forward(x: Tensor, size: int, keys: Tensor) -> Tensor:
    a, b, h = radix(size)
    left, right = x >> h, x & (b - 1)
    for number in range(0, ROUNDS, 2):
        left = _add(left, word_below(mix(keys[number], right), a), a)
        right = _add(right, word_below(mix(keys[number + 1], left), b), b)
    return (left << h).add_(right)


def _backward(x: Tensor, size: int, keys: Tensor) -> Tensor:
    a, b, h = radix(size)
    left, right = x >> h, x & (b - 1)
    for number in reversed(range(0, ROUNDS, 2)):
        right = _subtract(right, word_below(mix(keys[number + 1], left), b), b)
        left = _subtract(left, word_below(mix(keys[number], right), a), a)
    return (left << h).add_(right)


def _add(x: Tensor, y: Tensor, modulus: int) -> Tensor:
    """x + y mod modulus, both in [0, modulus)."""
    total = x.add(y).sub_(modulus)
    return total.add_((total >> 63).bitwise_and_(modulus))


def _subtract(x: Tensor, y: Tensor, modulus: int) -> Tensor:
    """x - y mod modulus, both in [0, modulus)."""
    difference = x - y
    return difference.add_((difference >> 63).bitwise_and_(modulus))
