"""What maps keep in memory to be fast: tables, what kernels have sorted, and recycled buffers."""

from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import numpy as np
from torch import Tensor, nn

from lincon import kernels

_NO_STORE = type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, nn.Module


def kept_bytes(*things: object, but: object = ()) -> int:
    """The bytes of all tensors and arrays that things hold, those of ``but`` not counted.

    Tensors that share a storage count once.

    >>> import torch
    >>> ones = torch.ones(3)
    >>> kept_bytes([ones, ones[:2], {"more": torch.ones(5)}], but=ones)
    20
    """
    found = dict(_memory(things, set()))
    for address, _ in _memory(but, set()):
        found.pop(address, None)
    return sum(found.values())


def _memory(thing: object, seen: set[int]) -> Iterator[tuple[int, int]]:
    """Address and bytes of each piece of memory, some more than once."""
    if id(thing) in seen or isinstance(thing, _NO_STORE):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        if not thing.is_meta:
            storage = thing.untyped_storage()
            yield storage.data_ptr(), storage.nbytes()
    elif isinstance(thing, np.ndarray):
        yield thing.__array_interface__["data"][0], thing.nbytes
    else:
        for inner in _within(thing):
            yield from _memory(inner, seen)


def _within(thing: object) -> list[object]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, tuple | list):
        return list(thing)
    own: list[object] = list(getattr(thing, "__dict__", {}).values())
    return [*own, kernels.kept_for(thing)] if isinstance(thing, kernels.Loop) else own
