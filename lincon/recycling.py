"""Large buffers that are reused as soon as nothing else holds them.

On a CPU the pages of a large tensor go back to the system when it is freed, and fetching them again
costs several times what filling them does. So a generator keeps the storage of its last results. It
writes the next result there if, and only if, no tensor, view or graph holds the storage any more.
In a training step the weights live there. After the backward nothing needs them, and the gradient
of the free vector takes their place. That saves 5 % of a step's time (ResNet-18, batch 8, one
thread). Accelerators have allocators that do this.
"""

import ctypes
import threading

import torch
from torch import Tensor

LARGE = 1 << 25
"""The smallest buffer to keep, in bytes. The C library's allocator keeps smaller ones itself."""

WASTE = 4
"""A result may use a kept buffer of at most this many times its size: no part can be freed."""

KEPT = 2
"""The number of buffers to keep: weights and gradient, if both are alive at once."""


class Recycler:
    """Keeps the last buffers that were asked for, at most `KEPT`."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, int]] = []
        self._lock = threading.Lock()

    def empty(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor (size,), in recycled storage if nothing else holds some."""
        wanted = size * dtype.itemsize
        if wanted < LARGE or device.type != "cpu":
            return torch.empty(size, dtype=dtype, device=device)
        with self._lock:
            buffer = self._unused(wanted)
            if buffer is None:
                buffer = torch.empty(wanted, dtype=torch.uint8)
                self._kept = [*self._kept, (buffer, _holders(buffer))][-KEPT:]
            # A new tensor over the storage shares no version counter or history with earlier ones.
            result: Tensor = torch.empty(0, dtype=dtype)
            # torch's stubs lack this form.
            result.set_(buffer.untyped_storage(), 0, (size,))  # type: ignore[call-overload]
            return result

    def zeros(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros (size,), in recycled storage if nothing else holds some."""
        if size * dtype.itemsize < LARGE:  # one operation in place of two
            return torch.zeros(size, dtype=dtype, device=device)
        return self.empty(size, dtype, device).zero_()

    def release(self) -> None:
        """Let go of the buffers: what still holds one keeps it."""
        with self._lock:
            self._kept = []

    def _unused(self, wanted: int) -> Tensor | None:
        """A buffer of about this many bytes that nothing else holds, or None."""
        for buffer, holders in self._kept:
            if wanted <= len(buffer) <= WASTE * wanted and _holders(buffer) == holders:
                return buffer
        return None


def _holders(buffer: Tensor) -> int:
    """How many tensors share the storage."""
    count: int = torch._C._storage_Use_Count(buffer.untyped_storage()._cdata)
    return count


def keep_pages() -> bool:
    """Ask the C library to keep the memory that this process frees. Returns whether it agreed.

    Training frees and allocates the same memory in every step, and the system hands freed pages
    back one by one. After this call resident memory stays at its peak. Only the GNU C library has
    such an option (its mallopt). The commands that train use it: constrained and unconstrained
    models alike gain a few percent.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    largest = (1 << 31) - 1
    return bool(mallopt(_M_MMAP_THRESHOLD, largest)) and bool(mallopt(_M_TRIM_THRESHOLD, largest))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
