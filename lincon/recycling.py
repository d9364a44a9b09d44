"""Large buffers that are used again as soon as nothing else holds them.

On a CPU the pages of a large tensor go back to the system when it is freed, and fetching them again costs several
times what filling them does. So a generator keeps the last large result of each kind and writes the next one into it
if, and only if, no tensor, view or graph holds its storage any more. Accelerators have allocators that do this.
"""

import threading

import torch
from torch import Tensor

LARGE = 1 << 20
"""Elements from which a buffer is kept."""


class Recycler:
    """At most one kept buffer for each (size, dtype)."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, torch.dtype], tuple[Tensor, int]] = {}
        self._lock = threading.Lock()

    def empty(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor (size,): of recycled storage where there is one that nothing else holds."""
        if device.type != "cpu" or size < LARGE:
            return torch.empty(size, dtype=dtype, device=device)
        with self._lock:
            kept = self._kept.get((size, dtype))
            if kept is None or _holders(kept[0]) != kept[1]:
                buffer = torch.empty(size, dtype=dtype)
                kept = self._kept[size, dtype] = buffer, _holders(buffer)
            # A tensor of its own over the storage: it shares neither version counter nor history with earlier ones.
            return torch.empty(0, dtype=dtype).set_(kept[0].untyped_storage(), 0, (size,))  # type: ignore[call-overload]


def _holders(buffer: Tensor) -> int:
    return torch._C._storage_Use_Count(buffer.untyped_storage()._cdata)
