"""Reading the arrays of a pickle without running anything that a pickle can ask for.

A pickle is a program: it names functions and calls them. This reader admits the few names that a
pickled NumPy array needs, and resolves them to stand-ins that store bytes and do nothing else.
NumPy itself is never called, so an array of objects, or a forged state of a dtype, can do no harm.
"""

import pickle
import pickletools
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lincon import LinconError
from lincon.errors import one_line
from lincon.shapes import UInt8
from lincon.tasks.experiments.data.remedies import remedy


class Array:
    """Stands in for `numpy.ndarray`: the state that was pickled."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def tensor(self) -> UInt8[Tensor, "..."]:
        """The tensor of the array's shape; ValueError if its content is not as many bytes."""
        if not isinstance(self.dtype, Dtype) or not isinstance(self.content, bytes):
            raise ValueError("an array is not of bytes")
        is_tuple = isinstance(self.shape, tuple) and len(self.shape) <= 4
        if not is_tuple or any(type(size) is not int or size < 0 for size in self.shape):
            raise ValueError("an array has no shape, or more than four dimensions")
        if prod(self.shape) != len(self.content):
            raise ValueError(f"an array of shape {self.shape} has {len(self.content)} bytes")
        flat = torch.frombuffer(bytearray(self.content), dtype=torch.uint8)
        return flat.view(self.shape[::-1]).T.contiguous() if self.fortran else flat.view(self.shape)


class Dtype:
    """Stands in for `numpy.dtype`; uint8 is the only one."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        if name not in ("u1", b"u1"):
            is_text = isinstance(name, str | bytes)
            shown = repr(name[:20]) if is_text else f"of a {type(name).__name__}"
            raise ValueError(f"an array has the dtype {shown}, not uint8")

    def __setstate__(self, state: object) -> None:
        pass


def _reconstruct(*_: object) -> Array:
    return Array()


ADMITTED = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
}
ENCODE = "_codecs", "encode"
"""The function with which Python 3 writes bytes in the protocol of Python 2."""

OPERATIONS = frozenset(
    (  # noqa: SIM905
        "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 STRING "
        "BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
        "SHORT_BINBYTES BINBYTES8 LIST EMPTY_LIST APPEND APPENDS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 "
        "TUPLE3 DICT EMPTY_DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD GET BINGET "
        "LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE"
    ).split()
)
"""The operations that write plain values and arrays."""


_Python: Any = pickle._Unpickler
_NAMES = {operation.code: operation.name for operation in pickletools.opcodes}


class Unpickler(pickle._Unpickler):
    """Reads plain values, and `Array` for arrays; refuses all other names with a LinconError.

    It extends Python's unpickler written in Python: the one in C allocates memory up to any index
    under which a pickle claims to memoize something. Keys must be text or bytes: a key of tuples
    within tuples takes exponential time to hash.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        operation: method
        for operation, method in _Python.dispatch.items()
        if _NAMES[chr(operation)] in OPERATIONS
    }

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self.path, self.encodable = path, 2 * len(content)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ENCODE:
            return self._encode
        if (module, name) not in ADMITTED:
            raise LinconError(
                f"{self.path} asks for {module}.{name}, which no array needs: do not trust this "
                "file."
            )
        return ADMITTED[module, name]

    def _encode(self, text: str, _: str) -> bytes:
        self.encodable -= len(text)
        if self.encodable < 0:
            raise ValueError("it encodes one text again and again")
        return text.encode("latin1")

    def _keys(self, items: list[Any]) -> None:
        for key in items[::2]:
            if not isinstance(key, str | bytes):
                raise ValueError(f"a key is of type {type(key).__name__}")

    def load_setitem(self) -> None:
        self._keys(self.stack[-2:])
        _Python.load_setitem(self)

    def load_setitems(self) -> None:
        self._keys(self.stack)
        _Python.load_setitems(self)

    def load_dict(self) -> None:
        self._keys(self.stack)
        _Python.load_dict(self)

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle, whose keys may be bytes (Python 2) or text.

    Raises:
        LinconError: the file is damaged, is no dictionary, or holds anything but plain values and
            arrays of uint8.
    """
    content = path.read_bytes()
    try:
        entries = Unpickler(path, content).load()
        return {
            key.decode() if isinstance(key, bytes) else key: value for key, value in entries.items()
        }
    except LinconError:
        raise
    except Exception as reason:  # a damaged pickle can fail in any way
        raise LinconError(
            f"{path} cannot be read ({one_line(reason)}): {remedy(content)}."
        ) from None
