"""Reading the arrays of a pickle without running anything that a pickle can ask for.

A pickle is a program: it names functions and calls them. This one may name the few that a pickled
NumPy array is made with, and even for those it gets stand-ins, which keep bytes and do nothing.
NumPy itself is never called: an array of objects, or a forged state of a dtype, has nothing to act
upon.
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
from lincon.errors import in_a_line


class Array:
    """Stands in for `numpy.ndarray`: the state that was pickled."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def tensor(self) -> Tensor:
        """The uint8 tensor of the array's shape; ValueError if its content is no bytes, or another number of them."""
        if not isinstance(self.dtype, Dtype) or not isinstance(self.content, bytes):
            raise ValueError("an array is not of bytes")
        shape = self.shape
        if (
            not isinstance(shape, tuple)
            or len(shape) > 4
            or any(type(n) is not int or n < 0 for n in shape)
        ):
            raise ValueError("an array has no shape, or more than four dimensions")
        if prod(self.shape) != len(self.content):
            raise ValueError(f"an array of shape {self.shape} has {len(self.content)} bytes")
        flat = torch.frombuffer(bytearray(self.content), dtype=torch.uint8)
        return flat.view(self.shape[::-1]).T.contiguous() if self.fortran else flat.view(self.shape)


class Dtype:
    """Stands in for `numpy.dtype`, of which there is one."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        if name not in ("u1", b"u1"):
            what = (
                repr(name[:20]) if isinstance(name, str | bytes) else f"of a {type(name).__name__}"
            )
            raise ValueError(f"an array has the dtype {what}, not uint8")

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
"""How Python 3 writes bytes in the protocol of Python 2."""

OPERATIONS = frozenset(
    (  # noqa: SIM905
        "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 STRING "
        "BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
        "SHORT_BINBYTES BINBYTES8 LIST EMPTY_LIST APPEND APPENDS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 "
        "TUPLE3 DICT EMPTY_DICT SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD GET BINGET "
        "LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE"
    ).split()
)
"""What plain values and arrays are written with."""


_Python: Any = pickle._Unpickler
_NAMES = {operation.code: operation.name for operation in pickletools.opcodes}


class Unpickler(_Python):
    """Reads plain values, and `Array` for arrays; LinconError names the file and whatever else it asks for.

    On top of Python's own written in Python: the one in C takes memory for every number under which
    a pickle claims to remember something. Keys are text or bytes: a key of tuples within tuples
    takes for ever to hash.
    """

    dispatch: ClassVar = {
        operation: method
        for operation, method in _Python.dispatch.items()
        if _NAMES[chr(operation)] in OPERATIONS
    }

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self.path, self.left = path, 2 * len(content)

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
        self.left -= len(text)
        if self.left < 0:
            raise ValueError("it encodes one text again and again")
        return text.encode("latin1")

    def _keys(self, items: list[Any]) -> None:
        for key in items[::2]:
            if not isinstance(key, str | bytes):
                raise ValueError(f"a key is of type {type(key).__name__}")

    def load_setitem(self) -> None:
        self._keys(self.stack[-2:])
        super().load_setitem()

    def load_setitems(self) -> None:
        self._keys(self.stack)
        super().load_setitems()

    def load_dict(self) -> None:
        self._keys(self.stack)
        super().load_dict()

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle, whose keys may be bytes (Python 2) or text.

    Raises:
        LinconError: damaged, no dictionary, or something but plain values and arrays of uint8.
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
        raise LinconError(f"{path} cannot be read ({in_a_line(reason)}): fetch it again.") from None
