"""MATLAB 5 files, whose structure is checked before scipy reads them.

scipy trusts the sizes that such a file claims for its parts: damaged ones end the process, or ask
for gigabytes. So every part is walked first, by the format's description (MathWorks, MAT-File
Format, version 5): each lies within the one around it, and has as many numbers as its dimensions
say.
"""

import re
import warnings
import zlib
from collections.abc import Container
from io import BytesIO
from math import prod
from pathlib import Path
from struct import Struct, iter_unpack
from typing import Any

from scipy.io import loadmat
from scipy.io.matlab import MatReadWarning

from lincon import LinconError
from lincon.errors import in_a_line

HEADER = 128
INT8, INT32, UINT32, MATRIX, COMPRESSED, UTF8 = 1, 5, 6, 14, 15, 16  # types of elements
CELL, STRUCT, CHARACTERS, NUMERIC = 1, 2, 4, range(6, 16)  # classes of arrays
COMPLEX = 8  # a flag of them
NUMBERS = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of a number by the type of its element."""
TEXT = {1: 1, 2: 1, 4: 2, 16: 1, 17: 2, 18: 4}
"""Bytes of a character, or of a part of one."""
PLENTY, MOST = 1 << 20, 256
"""A compressed variable has at most a mebibyte, and so many bytes for each of its own."""
DIMENSIONS = 64  # as many as NumPy has
DEEPEST = 32
"""Arrays within arrays: scipy descends by recursion."""


def load(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The named variables of a MATLAB 5 file, as far as it has them; nothing in it is executed.

    Raises LinconError for one that is damaged, of another version, or holds more than numbers,
    text, cells and structs.
    """
    content = path.read_bytes()
    try:
        check(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error", MatReadWarning)  # of two variables of one name
            found = loadmat(
                BytesIO(content), variable_names=names, struct_as_record=False, squeeze_me=True
            )
        return dict(found)
    except Exception as reason:  # scipy and NumPy raise whatever the bytes lead them to
        raise LinconError(
            f"{path} cannot be read as a MATLAB 5 file ({in_a_line(reason)}): fetch it again."
        ) from None


def check(content: bytes) -> None:
    """Raise ValueError unless every part of the file is whole."""
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(content[124:HEADER])
    if order is None:
        raise ValueError("it does not begin as one")
    file, at = _Walk(content, order), HEADER
    while at < len(content):
        kind, start, stop = file.element(at, len(content))
        if kind == COMPRESSED:
            inner = _inflated(content[start:stop])
            _Walk(inner, order).array(0, len(inner))
        else:
            file.array(at, len(content))
        at = stop


def _inflated(part: bytes) -> bytes:
    decoder = zlib.decompressobj()
    inner = decoder.decompress(part, PLENTY + MOST * len(part))
    if not decoder.eof:
        raise ValueError(f"a compressed variable is cut, or holds more than {len(inner)} bytes")
    return inner


class _Walk:
    """Over the elements in ``content``; ``order``: of bytes, as `struct` has it."""

    def __init__(self, content: bytes, order: str) -> None:
        self.content, self.order, self.tag = content, order, Struct(f"{order}II")
        self.seen: dict[bytes, int] = {}

    def element(self, at: int, end: int) -> tuple[int, int, int]:
        """Type of the element at ``at``, and where its data begin and end; not beyond ``end``."""
        if at + 8 > end:
            raise ValueError(f"it is cut at byte {at}")
        kind, size = self.tag.unpack_from(self.content, at)
        start, most = at + 8, end - at - 8
        if kind >> 16:  # a small one, whose four bytes of data are in the tag
            kind, size, start, most = kind & 0xFFFF, kind >> 16, at + 4, 4
        if size > most:
            raise ValueError(f"{size} bytes are claimed at byte {at}, where there are {most}")
        return kind, start, start + size

    def data(self, at: int, end: int, kinds: Container[int]) -> tuple[int, int, int, int]:
        """The same of an element of one of these types, and where the next one begins."""
        kind, start, stop = self.element(at, end)
        if kind not in kinds:
            raise ValueError(f"an element of type {kind} at byte {at}")
        return kind, start, stop, at + 8 if start == at + 4 else start + -(-(stop - start) // 8) * 8

    def array(self, at: int, end: int, depth: int = 0) -> int:
        """Check an array with all that is in it; where it ends."""
        alike = self._alike(at)
        if (size := self.seen.get(alike)) is not None and at + size <= end:
            return at + size
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} arrays within one another")
        _, start, stop, _ = self.data(at, end, (MATRIX,))
        if start == stop:
            return stop
        _, low, high, here = self.data(start, stop, (UINT32,))
        if high - low != 8:
            raise ValueError(f"flags of {high - low} bytes at byte {low}")
        flags = int(self.tag.unpack_from(self.content, low)[0])
        _, low, high, here = self.data(here, stop, (INT32,))
        if (high - low) % 4 or not 2 <= (high - low) // 4 <= DIMENSIONS:
            raise ValueError(f"dimensions of {high - low} bytes at byte {low}")
        shape = [size for (size,) in iter_unpack(f"{self.order}i", self.content[low:high])]
        if min(shape) < 0:
            raise ValueError(f"dimensions {shape} at byte {low}")
        _, _, _, here = self.data(here, stop, (INT8,))
        leaf = here == at + 48
        here = self._inside(flags, prod(shape), here, stop, depth)
        if here != stop:
            raise ValueError(f"{stop - here} bytes too many at byte {here}")
        if leaf and flags & 255 in NUMERIC and not flags >> 8 & COMPLEX:
            self.seen[alike] = stop - at
        return stop

    def _inside(self, flags: int, count: int, at: int, stop: int, depth: int) -> int:
        """Check what comes after the name of an array of ``count`` values, and where that ends."""
        kind = flags & 255
        if kind in NUMERIC:
            for _ in range(2 if flags >> 8 & COMPLEX else 1):
                stored, low, high, at = self.data(at, stop, NUMBERS)
                if high - low != count * NUMBERS[stored]:
                    raise ValueError(f"{high - low} bytes for {count} numbers at byte {low}")
            return at
        if kind == CHARACTERS:
            stored, low, high, at = self.data(at, stop, TEXT)
            if (high - low) % TEXT[stored] or (
                high - low < count if stored == UTF8 else high - low != count * TEXT[stored]
            ):
                raise ValueError(f"{high - low} bytes for {count} characters at byte {low}")
            return at
        if kind == STRUCT:
            _, low, high, at = self.data(at, stop, (INT32,))
            width = int.from_bytes(
                self.content[low:high], "little" if self.order == "<" else "big", signed=True
            )
            _, low, high, at = self.data(at, stop, (INT8,))
            if width < 1 or (high - low) % width:
                raise ValueError(f"field names of {high - low} bytes, {width} each, at byte {low}")
            names = [
                self.content[start : start + width].rstrip(b"\0")
                for start in range(low, high, width)
            ]
            if len({*names}) < len(names) or not all(
                re.fullmatch(rb"[A-Za-z]\w*", name) for name in names
            ):
                raise ValueError(f"field names {names[:8]} at byte {low}")
            if not names and count > 1:
                raise ValueError(f"{count} structs without a field at byte {low}")
            count *= len(names)
        elif kind != CELL:
            raise ValueError(f"an array of class {kind} at byte {at}")
        if count > (stop - at) // 8:
            raise ValueError(f"{count} arrays in {stop - at} bytes at byte {at}")
        for _ in range(count):
            at = self.array(at, stop, depth + 1)
        return at

    def _alike(self, at: int) -> bytes:
        """Head of an array without a name, up to its numbers: arrays of equal heads are checked once."""
        small = (
            self.tag.unpack_from(self.content, at + 48)[0] >> 16
            if at + 56 <= len(self.content)
            else 0
        )
        return self.content[at : at + (52 if small else 56)]
