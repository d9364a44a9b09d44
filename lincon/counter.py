"""Counter-based randomness: a fixed function of (seed, stream, counter), in integers only.

The value at a counter does not depend on how many values are asked for, in which order, on which
device or with which library version, so a generating matrix G is a function of its spec alone.
Arithmetic is modulo 2**64, carried out on int64 tensors (two's complement wraps). ``VERSION`` names
the functions below: any change of a bit needs a new one, and `tests/golden` notices.

The mixing steps are those of MurmurHash3's 64-bit finaliser (A. Appleby, public domain) and of
splitmix64 (Steele, Lea, Flood 2014), with a keyed whitening before and between the multiplications.
What every row asks for is mixed in 32 bits (`mix`), because processors multiply many numbers of 32
bits at a time. Its multipliers and shifts are triple32's (C. Wellons, public domain).
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.shapes import Float32, Int, Int8, Int64, Num

VERSION = 2

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_C1 = 0xFF51AFD7ED558CCD
_C2 = 0xC4CEB9FE1A85EC53
_MASK_32 = (1 << 32) - 1
_C1_32 = 0xED5AD4BB
_C2_32 = 0xAC4C1B51
_C3_32 = 0x31848BAB


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


def halves(of_key: int) -> tuple[int, int]:
    """What `bits` mixes in before and between its multiplications, for a key that is an int."""
    return of_key, _scramble(of_key)


def shift_right(x: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    """Logical shift of int64 ``x``: zeros come in from the left."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def bits(keys: int | Int64[Tensor, "..."], counter: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """64 random bits for each counter, of the same shape.

    ``keys`` is one key, or a tensor of keys that broadcasts against ``counter``.

    >>> bits(key(0, 1), torch.arange(3))[2] == bits(key(0, 1), torch.tensor([2]))[0]
    tensor(True)
    """
    first: int | Tensor
    second: int | Tensor
    if isinstance(keys, Tensor):
        first, second = keys, _finish(keys.clone())
    else:
        first, second = (_signed(half) for half in halves(keys))
    x = (counter * _signed(_GOLDEN)) ^ first
    x.bitwise_xor_(shift_right(x, 33)).mul_(_signed(_C1))
    return _finish(x.bitwise_xor_(second))


def _finish(x: Tensor) -> Tensor:
    """The last half of the finaliser, in place."""
    x.bitwise_xor_(shift_right(x, 29)).mul_(_signed(_C2))
    return x.bitwise_xor_(shift_right(x, 32))


def mix(keys: Int64[Tensor, "..."], counter: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """32 random bits for the lowest 32 bits of each counter, as integers in [0, 2**32).

    ``keys``, 64 bits each, broadcast against ``counter``.

    >>> mix(torch.tensor(7), torch.arange(3))
    tensor([1327878809, 2788712337, 3812484385])
    """
    x = (counter & _MASK_32) ^ (keys & _MASK_32)
    x = ((x ^ (x >> 17)) * _C1_32).bitwise_and_(_MASK_32) ^ shift_right(keys, 32)
    x = ((x ^ (x >> 11)) * _C2_32).bitwise_and_(_MASK_32)
    x = ((x ^ (x >> 15)) * _C3_32).bitwise_and_(_MASK_32)
    return x ^ (x >> 14)


def words(stream: int, counter: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """32 random bits of a stream's key for each counter, as integers in [0, 2**32).

    Counters may have 64 bits: the upper 32 make the key of the lower.
    """
    keys = shared(lambda high: bits(stream, high), counter >> 32)
    return mix(keys, counter)


def row_signs(stream: int, rows: Int64[Tensor, " n"]) -> Int8[Tensor, " n"]:
    """A random sign, +1 or -1, for each row: 64 rows share one draw of `bits`, from bit 0 on."""
    drawn = shared(lambda block: bits(stream, block), rows >> 6)
    return signs(drawn >> (rows & 63))


def shared(
    function: Callable[[Int64[Tensor, " m"]], Int64[Tensor, "... m"]], counter: Int64[Tensor, " n"]
) -> Int64[Tensor, "... n"]:
    """``function(counter)``, (..., n), evaluated once for each run of equal counters."""
    changes = counter[1:] != counter[:-1]
    if not bool(changes.any()):
        same = function(counter[:1])
        return same.expand(*same.shape[:-1], len(counter))
    place = torch.zeros_like(counter, dtype=torch.int32)
    torch.cumsum(changes, 0, dtype=torch.int32, out=place[1:])
    starts = torch.cat([changes.new_ones(1), changes]).nonzero().squeeze(1)
    return function(counter[starts]).index_select(-1, place)


def below(random: Int64[Tensor, "..."], bound: int | Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """Map 64 random bits to integers in [0, bound), where bound <= 2**31.

    The top 32 bits are multiplied with the bound; the bias is at most bound / 2**32. Raises
    LinconError if the bound is an int and larger.

    >>> random = below(bits(key(0, 1), torch.arange(1000)), 6)
    >>> int(random.min()), int(random.max())
    (0, 5)
    """
    return word_below(shift_right(random, 32), bound)


def word_below(
    word: Int64[Tensor, "..."], bound: int | Int64[Tensor, "..."]
) -> Int64[Tensor, "..."]:
    """`below` of 32 random bits."""
    if isinstance(bound, int):
        checked_bound(bound)
    return (word * bound).bitwise_right_shift_(32)


def checked_bound(bound: int) -> int:
    """``bound`` itself. Raises LinconError above 2**31."""
    if bound > 1 << 31:
        raise LinconError(f"Numbers below {bound} need more than 31 random bits: give less dof.")
    return bound


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
