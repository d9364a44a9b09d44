"""Counter-based randomness: a fixed function of (seed, stream, counter), in integers only.

The value at a counter does not depend on how many values are asked for, in which order, on which
device or with which library version, so a generating matrix G is a function of its spec alone.
Arithmetic is modulo 2**64, carried out on int64 tensors (two's complement wraps). ``VERSION`` names
the functions below: any change of a bit needs a new one, and `tests/golden` notices.

The mixing steps are those of MurmurHash3's 64-bit finaliser (A. Appleby, public domain) and of
splitmix64 (Steele, Lea, Flood 2014), with a keyed whitening before and between the multiplications.
"""

from functools import cache

import torch
from torch import Tensor

from lincon.shapes import Float32, Int, Int64, Num

VERSION = 1

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_C1 = 0xFF51AFD7ED558CCD
_C2 = 0xC4CEB9FE1A85EC53


def _signed(value: int) -> int:
    """The int64 whose bits are those of ``value`` modulo 2**64."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _scramble(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def key(seed: int, *streams: int) -> int:
    """A 64-bit key from a seed and streams.

    Seed and streams are mixed, never added, so that neighbouring keys are unrelated.

    >>> key(0, 1) == key(1, 0)
    False
    """
    mixed = _scramble(seed & _MASK)
    while seed not in (0, -1):  # limb by limb, so that integers of any size differ
        seed >>= 64
        mixed = _scramble(mixed ^ _scramble((seed & _MASK) ^ 0x5851F42D4C957F2D))
    for stream in streams:
        mixed = _scramble(mixed ^ _scramble(stream ^ 0x14057B7EF767814F))
    return mixed


def shift_right(x: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    """Logical shift of int64 ``x``: zeros come in from the left."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def bits(keys: int | Int64[Tensor, "..."], counter: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """64 random bits for each counter, of the same shape.

    ``keys`` is one key, or a tensor of keys that broadcasts against ``counter``.

    >>> bits(key(0, 1), torch.arange(3))[2] == bits(key(0, 1), torch.tensor([2]))[0]
    tensor(True)
    """
    first = keys if isinstance(keys, Tensor) else _signed(keys)
    second = (
        _finish(first.clone()) if isinstance(first, Tensor) else _signed(_scramble(first & _MASK))
    )
    x = (counter * _signed(_GOLDEN)).bitwise_xor_(first)
    x.bitwise_xor_(shift_right(x, 33)).mul_(_signed(_C1))
    return _finish(x.bitwise_xor_(second))


def _finish(x: Tensor) -> Tensor:
    """The last half of the finaliser, in place."""
    x.bitwise_xor_(shift_right(x, 29)).mul_(_signed(_C2))
    return x.bitwise_xor_(shift_right(x, 32))


def below(random: Int64[Tensor, "..."], bound: int | Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """Map 64 random bits to integers in [0, bound), where bound < 2**31.

    The top 32 bits are multiplied with the bound; the bias is at most bound / 2**32.

    >>> random = below(bits(key(0, 1), torch.arange(1000)), 6)
    >>> int(random.min()), int(random.max())
    (0, 5)
    """
    return shift_right(random, 32).mul_(bound).bitwise_right_shift_(32)


def signs(random: Int64[Tensor, "..."], dtype: torch.dtype = torch.int8) -> Num[Tensor, "..."]:
    """The lowest bit of each value as +1 or -1.

    >>> signs(torch.tensor([4, 5]))
    tensor([ 1, -1], dtype=torch.int8)
    """
    return (random & 1).mul_(-2).add_(1).to(dtype)


def normals(random: Int[Tensor, "..."]) -> Float32[Tensor, "..."]:
    """The lowest 12 bits of each value as one of 4096 equally likely quantiles of N(0, 1).

    They are rounded to multiples of 2^-12, so that every one is exactly representable.

    >>> normals(torch.tensor([2048])) * 4096
    tensor([1.])
    """
    return _quantiles(random.device)[random.int() & 4095]


@cache
def _quantiles(device: torch.device) -> Tensor:
    from statistics import NormalDist  # a tenth of lincon's import time

    levels = [round(NormalDist().inv_cdf((level + 0.5) / 4096) * 4096) for level in range(4096)]
    return torch.tensor(levels, device=device) / 4096
