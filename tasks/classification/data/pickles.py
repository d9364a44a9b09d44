"""Reading the arrays of a pickle without running anything that a pickle can ask for.

A pickle is a program: it names functions and calls them. This one may name the few that a pickled NumPy array is
made with, and even for those it gets stand-ins, which keep bytes and do nothing. NumPy itself is never called:
an array of objects, or a forged state of a dtype, has nothing to act upon.
"""

import pickle
import pickletools
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lincon import LinconError


class Array:
    """Stands in for `numpy.ndarray`: the state that was pickled."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def tensor(self) -> Tensor:
        """The uint8 tensor of the array's shape; ValueError if its content is no bytes, or another number of them."""
        if not isinstance(self.dtype, Dtype) or not isinstance(self.content, bytes):
            raise ValueError("an array is not of bytes")
        if prod(self.shape) != len(self.content) or min(self.shape) < 0:
            raise ValueError(f"an array of shape {self.shape} has {len(self.content)} bytes")
        flat = torch.frombuffer(bytearray(self.content), dtype=torch.uint8)
        return flat.view(self.shape[::-1]).T.contiguous() if self.fortran else flat.view(self.shape)


class Dtype:
    """Stands in for `numpy.dtype`, of which there is one."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        if name not in ("u1", b"u1"):
            raise ValueError(f"an array has the dtype {name!r}, not uint8")

    def __setstate__(self, state: object) -> None:
        pass


def _reconstruct(*_: object) -> Array:
    return Array()


def _encode(text: str, _: str) -> bytes:
    return text.encode("latin1")


ADMITTED = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes in the protocol of Python 2
}


class Unpickler(pickle.Unpickler):
    """Reads plain values, and `Array` for arrays; LinconError names the file and whatever else it asks for."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file, encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise LinconError(f"{self.path} asks for {module}.{name}, which no array needs: do not trust this file.")
        return ADMITTED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle, whose keys may be bytes (Python 2) or text.

    Raises:
        LinconError: damaged, no dictionary, or something but plain values and arrays of uint8.
    """
    try:
        content = path.read_bytes()
        _check_memory(content)
        entries = Unpickler(path, BytesIO(content)).load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in entries.items()}
    except LinconError:
        raise
    except Exception as reason:  # a damaged pickle can fail in any way
        said = " ".join(str(reason).split()) or type(reason).__name__
        raise LinconError(f"{path} cannot be read ({said}): fetch it again.") from None


def _check_memory(content: bytes) -> None:
    """Raise ValueError for a pickle that remembers things under numbers that it does not reach by counting.

    Memory is taken for all numbers below.
    """
    for count, (operation, number, _) in enumerate(pickletools.genops(content)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(number or 0) <= count:
            raise ValueError(f"its operation {count} has the number {number}")
