"""The size of a safetensors file, without writing it."""

import json
from collections.abc import Mapping
from itertools import accumulate

from torch import Tensor

from lincon.errors import LinconError

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
"""What a safetensors file calls a type; tensors are laid in the opposite order, then by name."""
_RANKS = {name: rank for rank, name in enumerate(_NAMES)}
_ALIGNED = 8
"""The length of the header is a multiple of this."""


def size_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Bytes of the file: eight that hold the length of its header, the header, and the tensors.

    Raises:
        LinconError: a tensor of a type that safetensors does not know.

    >>> import safetensors.torch, torch
    >>> tensors = {"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=torch.int8)}
    >>> size_of(tensors, {"k": "v"}) == len(safetensors.torch.save(tensors, {"k": "v"}))
    True
    """
    types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    for name, kind in types.items():
        if kind not in _NAMES:
            raise LinconError(f"{name!r} is of {kind}, which a safetensors file cannot hold.")
    order = sorted(tensors, key=lambda name: (-_RANKS[types[name]], name))
    ends = list(accumulate((tensors[name].nbytes for name in order), initial=0))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    for name, start, stop in zip(order, ends, ends[1:], strict=False):
        header[name] = {
            "dtype": _NAMES[types[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, stop],
        }
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // _ALIGNED) * _ALIGNED + ends[-1]
