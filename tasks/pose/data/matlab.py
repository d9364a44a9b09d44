"""MATLAB 5 files, whose structure is checked before scipy reads them.

scipy trusts the sizes that such a file claims for its parts: a damaged file can end the process, or
ask for gigabytes. So every part is walked first, as the format's description says (MathWorks,
MAT-File Format, version 5): each part must lie within the one around it, and must hold as many
numbers as its dimensions say.
"""

import re
import warnings
import zlib
from collections.abc import Container
from io import BytesIO
from math import prod
from pathlib import Path
from struct import Struct, iter_unpack, unpack_from
from typing import Any, Literal, NamedTuple

from scipy.io import loadmat
from scipy.io.matlab import MatReadWarning

from lincon import LinconError
from lincon.errors import one_line
from lincon.tasks.experiments.data.remedies import remedy

HEADER = 128
HDF5 = b"\x89HDF\r\n\x1a\n"
INT8, INT32, UINT32, MATRIX, COMPRESSED, UTF8 = 1, 5, 6, 14, 15, 16  # types of elements
CELL, STRUCT, CHARACTERS, NUMERIC = 1, 2, 4, range(6, 16)  # classes of arrays
COMPLEX = 8  # a flag of arrays
NUMBERS = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of a number by the type of its element."""
TEXT = {1: 1, 2: 1, 4: 2, 16: 1, 17: 2, 18: 4}
"""Bytes of a character, or of a part of one."""
SMALL, MAX_RATIO = 1 << 20, 256
"""A compressed variable may inflate to a mebibyte, plus so many bytes for each of its own."""
DIMENSIONS = 64  # NumPy's limit
DEEPEST = 32
"""Levels of arrays within arrays; scipy descends by recursion."""


def load(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the named variables that a MATLAB 5 file has; nothing in it is executed.

    Raises LinconError if the file is damaged or of another version, or if it holds anything but
    numbers, text, cells and structs.
    """
    content = path.read_bytes()
    try:
        check(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error", MatReadWarning)  # two variables of one name
            variables = loadmat(
                BytesIO(content), variable_names=names, struct_as_record=False, squeeze_me=True
            )
        return dict(variables)
    except Exception as reason:  # scipy and NumPy raise whatever the bytes lead them to
        raise LinconError(
            f"{path} cannot be read as a MATLAB 5 file ({one_line(reason)}): {_remedy(content)}."
        ) from None


def _remedy(content: bytes) -> str:
    """What to do about a file that is not of version 5."""
    is_newer = HDF5 in (content[: len(HDF5)], content[512 : 512 + len(HDF5)])
    if is_newer or _is_version_4(content):
        version = "7.3, which is HDF5," if is_newer else "4"
        return f"it is of version {version} so save it again in MATLAB with save(..., '-v7')"
    return remedy(content)


def _is_version_4(content: bytes) -> bool:
    """Whether a file begins as a variable of version 4: its type, its sizes and its name."""
    if len(content) < 20:
        return False
    for order, machine in (("<", 0), (">", 1000)):
        kind, rows, columns, imaginary, length = unpack_from(f"{order}5i", content)
        is_kind = kind - machine in range(60) and kind % 10 < 3
        name = content[20 : 20 + max(0, length)]
        is_name = 1 < length <= 64 and name[:1].isalpha() and name.endswith(b"\0")
        if is_kind and rows >= 0 and columns >= 0 and imaginary in (0, 1) and is_name:
            return True
    return False


def check(content: bytes) -> None:
    """Raise ValueError unless every part of the file is whole."""
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(content[124:HEADER])
    if order is None:
        raise ValueError("it does not begin as one")
    file, at = _Walk(content, order), HEADER
    while at < len(content):
        variable = file.element(at, len(content))
        if variable.kind == COMPRESSED:
            inflated = _inflated(content[variable.start : variable.stop])
            _Walk(inflated, order).array(0, len(inflated))
        else:
            file.array(at, len(content))
        at = variable.stop


def _inflated(part: bytes) -> bytes:
    decoder = zlib.decompressobj()
    inflated = decoder.decompress(part, SMALL + MAX_RATIO * len(part))
    if not decoder.eof:
        raise ValueError(f"a compressed variable is cut, or holds more than {len(inflated)} bytes")
    return inflated


class _Element(NamedTuple):
    """An element's type, where its data begin and end, and where the next element begins."""

    kind: int
    start: int
    stop: int
    next: int

    @property
    def size(self) -> int:
        """Bytes of data."""
        return self.stop - self.start


class _Walk:
    """A walk over the elements in ``content``.

    ``order``: of bytes, as `struct` writes it.
    """

    def __init__(self, content: bytes, order: str) -> None:
        self.content, self.order, self.tag = content, order, Struct(f"{order}II")
        self.checked_sizes: dict[bytes, int] = {}

    def element(self, at: int, end: int, kinds: Container[int] | None = None) -> _Element:
        """The element at ``at``, of one of these types, which must end by ``end``."""
        if at + 8 > end:
            raise ValueError(f"it is cut at byte {at}")
        kind, size = self.tag.unpack_from(self.content, at)
        is_small = kind >> 16 != 0  # the four bytes of data are in the tag
        if is_small:
            kind, size, start, available = kind & 0xFFFF, kind >> 16, at + 4, 4
        else:
            start, available = at + 8, end - at - 8
        if size > available:
            raise ValueError(f"{size} bytes are claimed at byte {at}, where there are {available}")
        if kinds is not None and kind not in kinds:
            raise ValueError(f"an element of type {kind} at byte {at}")
        padded = at + 8 if is_small else start + -(-size // 8) * 8
        return _Element(kind, start, start + size, padded)

    def array(self, at: int, end: int, depth: int = 0) -> int:
        """Check an array with all that is in it; where it ends."""
        head = self._head(at)
        checked_size = self.checked_sizes.get(head)
        if checked_size is not None and at + checked_size <= end:
            return at + checked_size
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} arrays within one another")
        whole = self.element(at, end, (MATRIX,))
        if whole.size == 0:
            return whole.stop
        flags = self.element(whole.start, whole.stop, (UINT32,))
        kind, is_complex = self._class(flags)
        dimensions = self.element(flags.next, whole.stop, (INT32,))
        count = prod(self._shape(dimensions))
        name = self.element(dimensions.next, whole.stop, (INT8,))
        after = self._values(kind, is_complex, count, name.next, whole.stop, depth)
        if after != whole.stop:
            raise ValueError(f"{whole.stop - after} bytes too many at byte {after}")
        head_is_all = name.next == at + 48  # two dimensions and no name come before the numbers
        if head_is_all and kind in NUMERIC and not is_complex:
            self.checked_sizes[head] = whole.stop - at
        return whole.stop

    def _class(self, flags: _Element) -> tuple[int, bool]:
        """Class of an array, and whether its numbers are complex."""
        if flags.size != 8:
            raise ValueError(f"flags of {flags.size} bytes at byte {flags.start}")
        value = int(self.tag.unpack_from(self.content, flags.start)[0])
        return value & 255, bool(value >> 8 & COMPLEX)

    def _shape(self, dimensions: _Element) -> list[int]:
        size, start = dimensions.size, dimensions.start
        if size % 4 or not 2 <= size // 4 <= DIMENSIONS:
            raise ValueError(f"dimensions of {size} bytes at byte {start}")
        stored = self.content[start : dimensions.stop]
        shape = [length for (length,) in iter_unpack(f"{self.order}i", stored)]
        if min(shape) < 0:
            raise ValueError(f"dimensions {shape} at byte {start}")
        return shape

    def _values(
        self, kind: int, is_complex: bool, count: int, at: int, stop: int, depth: int
    ) -> int:
        """Check what comes after the name of an array of ``count`` values, and where that ends."""
        if kind in NUMERIC:
            for _ in range(2 if is_complex else 1):
                at = self._numbers(count, at, stop)
            return at
        if kind == CHARACTERS:
            return self._characters(count, at, stop)
        if kind == STRUCT:
            fields, at = self._fields(count, at, stop)
            return self._arrays(count * fields, at, stop, depth + 1)
        if kind == CELL:
            return self._arrays(count, at, stop, depth + 1)
        raise ValueError(f"an array of class {kind} at byte {at}")

    def _numbers(self, count: int, at: int, stop: int) -> int:
        numbers = self.element(at, stop, NUMBERS)
        if numbers.size != count * NUMBERS[numbers.kind]:
            raise ValueError(f"{numbers.size} bytes for {count} numbers at byte {numbers.start}")
        return numbers.next

    def _characters(self, count: int, at: int, stop: int) -> int:
        text = self.element(at, stop, TEXT)
        width = TEXT[text.kind]
        # A character of UTF-8 takes one byte or more, all others as many as the type says.
        fits = text.size >= count if text.kind == UTF8 else text.size == count * width
        if text.size % width or not fits:
            raise ValueError(f"{text.size} bytes for {count} characters at byte {text.start}")
        return text.next

    def _fields(self, count: int, at: int, stop: int) -> tuple[int, int]:
        """How many fields ``count`` structs have each, and where the first one's value begins."""
        length = self.element(at, stop, (INT32,))
        order: Literal["little", "big"] = "little" if self.order == "<" else "big"
        width = int.from_bytes(self.content[length.start : length.stop], order, signed=True)
        names = self.element(length.next, stop, (INT8,))
        if width < 1 or names.size % width:
            raise ValueError(
                f"field names of {names.size} bytes, {width} each, at byte {names.start}"
            )
        fields = [
            self.content[start : start + width].rstrip(b"\0")
            for start in range(names.start, names.stop, width)
        ]
        well_formed = all(re.fullmatch(rb"[A-Za-z]\w*", field) for field in fields)
        if len({*fields}) < len(fields) or not well_formed:
            raise ValueError(f"field names {fields[:8]} at byte {names.start}")
        if not fields and count > 1:
            raise ValueError(f"{count} structs without a field at byte {names.start}")
        return len(fields), names.next

    def _arrays(self, count: int, at: int, stop: int, depth: int) -> int:
        if count > (stop - at) // 8:
            raise ValueError(f"{count} arrays in {stop - at} bytes at byte {at}")
        for _ in range(count):
            at = self.array(at, stop, depth)
        return at

    def _head(self, at: int) -> bytes:
        """An array of two dimensions without a name, up to its numbers.

        Arrays with equal heads are equally long, so the walk checks one of them only.
        """
        is_small = False
        if at + 56 <= len(self.content):
            is_small = self.tag.unpack_from(self.content, at + 48)[0] >> 16 != 0
        return self.content[at : at + (52 if is_small else 56)]
