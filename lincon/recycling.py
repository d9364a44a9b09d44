"""Large buffers that are used again as soon as nothing else holds them.

On a CPU the pages of a large tensor go back to the system when it is freed, and fetching them again
costs several times what filling them does. So a generator keeps the storage of its last results and
writes the next one into it if, and only if, no tensor, view or graph holds it any more. In a
training step the weights live there, and after the backward, when nothing needs them, the gradient
of the free vector. Accelerators have allocators that do this.
"""

import ctypes
import threading

import torch
from torch import Tensor

LARGE = 1 << 25
"""Bytes from which a buffer is kept: the C library's own allocator keeps what is smaller (its mmap
threshold)."""

WASTE = 4
"""A result gets the kept buffer only if that is at most this many times as large: it cannot be
freed in part."""


KEPT = 2
"""Buffers that are kept: weights and gradient, where both are alive at once."""


class Recycler:
    """The last buffers asked for, at most `KEPT`."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, int]] = []
        self._lock = threading.Lock()

    def empty(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor (size,): of recycled storage where there is one that nothing else
        holds."""
        wanted = size * dtype.itemsize
        if device.type != "cpu" or wanted < LARGE:
            return torch.empty(size, dtype=dtype, device=device)
        with self._lock:
            buffer = self._unused(wanted)
            if buffer is None:
                buffer = torch.empty(wanted, dtype=torch.uint8)
                self._kept = [*self._kept, (buffer, _holders(buffer))][-KEPT:]
            # A tensor of its own over the storage: it shares neither version counter nor history
            # with earlier ones.
            result: Tensor = torch.empty(0, dtype=dtype)
            result.set_(buffer.untyped_storage(), 0, (size,))  # type: ignore[call-overload]
            return result

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
    """Have the C library keep what this process frees, for what it allocates next; whether it could
    be asked to.

    A training frees and fetches the same memory in every step, and pages that went back to the
    system in between are fetched one by one. Resident memory stays at its peak from then on. Only
    the GNU C library can be asked (its mallopt); the commands that train do, and constrained and
    unconstrained models alike gain a few percent.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    most = (1 << 31) - 1
    return bool(mallopt(_M_MMAP_THRESHOLD, most)) and bool(mallopt(_M_TRIM_THRESHOLD, most))


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
