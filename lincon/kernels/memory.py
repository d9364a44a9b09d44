"""A tensor's memory as an array of NumPy, without a mark on the tensor.

`Tensor.numpy` forbids for ever that the storage is resized, which FSDP does to free a parameter.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_TYPES = {
    torch.float32: "<f4",
    torch.float64: "<f8",
    torch.int8: "|i1",
    torch.uint8: "|u1",
    torch.int16: "<i2",
    torch.int32: "<i4",
}


class _Memory:
    """What NumPy asks for the memory of a tensor, which it keeps alive."""

    __slots__ = ("__array_interface__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "typestr": _TYPES[tensor.dtype],
        }


def is_plain(tensor: Tensor) -> bool:
    """Whether the memory of a tensor holds its numbers, one after another.

    It does not if the tensor is a view that negates, as torch makes of the imaginary part of a
    conjugate.
    """
    return tensor.is_contiguous() and not tensor.is_neg()


def plain(tensor: Tensor) -> Tensor:
    """The tensor, or a copy that is plain."""
    return tensor if is_plain(tensor) else tensor.resolve_neg().contiguous()


def array_of(tensor: Tensor) -> np.ndarray:
    """An array over the memory of a tensor on a CPU, or of a plain copy.

    >>> array_of(torch.tensor([1.0, 2.0]))
    array([1., 2.], dtype=float32)
    """
    return np.asarray(_Memory(plain(tensor)))
