"""Lossless entropy coding of small integers in a file: masks, quantised and cluster numbers.

A tensor whose values span at most 256 integers becomes bytes in the shortest of three ways:

- "bits" packs each value into as many bits as the range needs.
- "huffman" codes a byte a value (zlib with matches switched off), as the last step of Deep
  Compression does.
- "gaps" leaves out the most frequent value. One byte gives the distance from each other value to
  the next (255 continues the count). The distances and then the values are Huffman-coded, so that a
  sparse mask takes about its entropy.
"""

import zlib
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lincon.errors import FileError, one_line
from lincon.files.description import DIMENSIONS
from lincon.shapes import Shaped, UInt8

DTYPES = {
    str(t).removeprefix("torch."): t
    for t in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32)
}
"""The dtypes that can be coded, by name."""

MAX_RATIO = 256 * 8
"""The most bytes that a coded byte can stand for: a gap of 255 in each bit.

A file that claims more is refused.
"""

USUAL_RATIO = MAX_RATIO // 8
"""The bytes that a coded byte may stand for without drawing on the budget."""

BUDGET = 1 << 26
"""The bytes that all coded tensors of a file may take beyond `USUAL_RATIO` (64 MiB)."""

SKIP = 255  # a gap that continues in the next byte


def encode(
    tensor: Shaped[Tensor, "..."], budget: int = BUDGET
) -> tuple[UInt8[Tensor, " bytes"], dict[str, Any]] | None:
    """Code a tensor as bytes, with plain JSON from which `decode` restores it.

    Returns None if the dtype cannot be coded, the range of values is too wide, or no way is shorter
    than the tensor itself and within the ``budget`` in bytes.

    >>> mask = torch.zeros(10_000, dtype=torch.bool)
    >>> mask[::100] = True
    >>> coded, description = encode(mask)
    >>> description["way"], len(coded) < 200, bool((decode(coded, description) == mask).all())
    ('gaps', True, True)
    """
    if tensor.dtype not in DTYPES.values() or not tensor.numel():
        return None
    values = tensor.detach().cpu().contiguous().numpy().reshape(-1).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if high - low > 255:
        return None
    symbols = (values - low).astype(np.uint8)
    width = max(1, (high - low).bit_length())
    codes = {
        "bits": _to_bits(symbols, width),
        "huffman": _to_huffman(symbols),
        "gaps": _to_gaps(symbols),
    }
    allowed = [way for way in codes if _is_allowed(tensor.nbytes, len(codes[way]), budget)]
    way = min(allowed, key=lambda way: len(codes[way]), default="")
    if not way or len(codes[way]) >= tensor.nbytes:
        return None
    description = {
        "way": way,
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "low": low,
        "width": width,
    }
    return torch.from_numpy(np.frombuffer(codes[way], np.uint8).copy()), description


def decode(
    coded: Shaped[Tensor, " bytes"], description: dict[str, Any], budget: int = BUDGET
) -> Shaped[Tensor, "..."]:
    """The tensor that was encoded, bit for bit.

    It checks sizes first, and never takes more memory than the bytes and ``budget`` allow.

    Raises:
        FileError: `encode` did not write this.
    """
    try:
        return _decode(coded, description, budget)
    except (
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise FileError(
            f"A coded tensor is damaged ({one_line(error)}); get another copy."
        ) from None


def _decode(coded: Tensor, description: dict[str, Any], budget: int) -> Tensor:
    dtype = DTYPES[description["dtype"]]
    shape = [int(size) for size in description["shape"]]
    low, width = int(description["low"]), int(description["width"])
    if len(shape) > DIMENSIONS or min(shape, default=1) < 0:
        raise ValueError(f"{len(shape)} dimensions, or one below 0")
    count = prod(shape)
    if not 1 <= width <= 8 or not _is_allowed(count * dtype.itemsize, coded.numel(), budget):
        raise ValueError(f"{shape} values of {width} bits from {coded.numel()} bytes")
    symbols = _WAYS[description["way"]](coded.numpy().tobytes(), count, width)
    least, most = _limits(dtype)
    if len(symbols) != count or low < least or low + int(symbols.max(initial=0)) > most:
        raise ValueError(f"{len(symbols)} values from {low} on are not {count} of {dtype}")
    # torch cannot add an integer to a bool in place, so bools are added as bytes.
    plain = torch.from_numpy(symbols.copy()).to(torch.uint8 if dtype == torch.bool else dtype)
    return plain.add_(low).to(dtype).view(shape)


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    if dtype == torch.bool:
        return 0, 1
    return torch.iinfo(dtype).min, torch.iinfo(dtype).max


def drawn(plain: int, coded: int) -> int:
    """The bytes that a tensor of ``plain`` bytes, coded in ``coded``, draws from the budget."""
    return max(0, plain - USUAL_RATIO * coded)


def _is_allowed(plain: int, coded: int, budget: int) -> bool:
    """Whether ``coded`` bytes may become ``plain``: no small file may take much memory."""
    return plain <= MAX_RATIO * coded and drawn(plain, coded) <= budget


def _to_bits(symbols: np.ndarray, width: int) -> bytes:
    return np.packbits((symbols[:, None] >> np.arange(width, dtype=np.uint8)) & 1).tobytes()


def _from_bits(coded: bytes, count: int, width: int) -> np.ndarray:
    if len(coded) != -(-count * width // 8):
        raise ValueError(f"{len(coded)} bytes for {count} values of {width} bits")
    bits = np.unpackbits(np.frombuffer(coded, np.uint8), count=count * width).reshape(count, width)
    symbols: np.ndarray = (bits << np.arange(width, dtype=np.uint8)).sum(1, dtype=np.uint8)
    return symbols


def _to_huffman(symbols: np.ndarray) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(symbols.tobytes()) + coder.flush()


def _from_huffman(coded: bytes, count: int, width: int = 8) -> np.ndarray:
    return np.frombuffer(inflated(coded, count), np.uint8)


def inflated(coded: bytes, most: int) -> bytes:
    """The deflated bytes. Raises ValueError if they are cut, more than ``most``, or go on by a bit."""
    plain = _inflated(coded, most)
    if plain is None or _inflated(_without_highest_bit(coded), most) == plain:
        raise ValueError("the stream is cut, or goes on")
    return plain


def _inflated(coded: bytes, most: int) -> bytes | None:
    decoder = zlib.decompressobj(-15)
    try:
        plain = decoder.decompress(coded, most + 1)
    except zlib.error:
        return None
    is_whole = len(plain) <= most and decoder.eof and not decoder.unused_data
    return plain if is_whole else None


def _without_highest_bit(coded: bytes) -> bytes:
    """The same but for the highest bit of the last byte that is set: the bits after the end are not."""
    last = coded[-1] if coded else 0
    return coded[:-1] + bytes([last ^ 1 << (last.bit_length() - 1)]) if last else b""


def _to_gaps(symbols: np.ndarray) -> bytes:
    """A head with the counts and the most frequent value, then the gaps, then the other values."""
    common = int(np.bincount(symbols).argmax())
    places = np.flatnonzero(symbols != common)
    gaps = np.diff(places, prepend=-1) - 1
    skips = gaps // SKIP
    stream = np.full(len(gaps) + int(skips.sum()), SKIP, np.uint8)
    stream[np.arange(len(gaps)) + skips.cumsum()] = gaps % SKIP
    others = symbols[places]
    parts = [_to_huffman(stream), _to_huffman(others) if symbols.max() > 1 else b""]
    head = np.array([len(places), len(stream), len(parts[0])], "<u8").tobytes() + bytes([common])
    return head + b"".join(parts)


def _from_gaps(coded: bytes, count: int, width: int) -> np.ndarray:
    places, length, first = (int(n) for n in np.frombuffer(coded[:24], "<u8"))
    common = coded[24]
    if max(places, length) > 8 * len(coded) or first > len(coded):
        raise ValueError("more gaps than its bytes can hold")
    stream = np.frombuffer(inflated(coded[25 : 25 + first], length), np.uint8).astype(np.int64)
    steps = (stream + (stream != SKIP)).cumsum() - 1
    at = steps[stream != SKIP]
    rest = coded[25 + first :]
    others = _from_huffman(rest, places) if rest else np.full(places, 1 - common, np.uint8)
    if (
        len(stream) != length
        or len(at) != places
        or len(others) != places
        or (places and at[-1] >= count)
    ):
        raise ValueError("gaps and values do not agree")
    symbols = np.full(count, common, np.uint8)
    symbols[at] = others
    return symbols


_WAYS = {"bits": _from_bits, "huffman": _from_huffman, "gaps": _from_gaps}
