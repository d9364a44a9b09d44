"""The family with one nonzero per row: G[i, index(i)] = sign(i), which most sharing schemes are.

(A sign may be any number: `lego` has coefficients there.)

A member says `entries`: (index, sign) of a row range. Unpack is a gather, adjoint a sum over equal indices,
GᵀG is diagonal (the number of uses), so projection is a mean. Cost: O(rows) time, no memory beyond a chunk;
a table is kept where it is no larger than `TABLE_BYTES`.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from lincon.generator import TABLE_BYTES, Generator, chunks

Entries = tuple[Tensor, Tensor | None]


class Single(Generator):
    """Base of generators whose rows each read one free entry, times a sign."""

    allows_unused = True
    diagonal_gram = True
    disjoint = True

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, dof, seed)
        self._tables: dict[torch.device, Entries] = {}

    @abstractmethod
    def entries(self, rows: Tensor) -> Entries:
        """Index (in [0, dof), int64) and sign (±1, int8, or None where all are +1) of ``rows``, int64 (n,)."""

    def _entries(self, start: int, stop: int, device: torch.device) -> Entries:
        """Those of a range: from the table where there is one."""
        if self.rows * 5 > TABLE_BYTES:
            return self.entries(torch.arange(start, stop, device=device))
        if device not in self._tables:
            index, sign = self.entries(torch.arange(self.rows, device=device))
            self._tables[device] = index.to(torch.int32), sign
        index, sign = self._tables[device]
        return index[start:stop], None if sign is None else sign[start:stop]

    def _write(self, out: Tensor, free: Tensor, start: int) -> None:
        for low, high in chunks(0, len(out)):
            index, sign = self._entries(start + low, start + high, out.device)
            torch.index_select(free, 0, index, out=out[low:high])
            if sign is not None:
                out[low:high].mul_(sign)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        for low, high in chunks(0, len(grad)):
            index, sign = self._entries(start + low, start + high, out.device)
            values = grad[low:high].to(out.dtype)
            add_at(out, index, values if sign is None else values * sign)

    def energy(self, start: int, stop: int) -> float:
        return 1.0

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        total = torch.zeros(self.dof, dtype=torch.float64, device="cpu")
        for low, high in chunks(0, self.rows):
            index, sign = self._entries(low, high, total.device)
            ones = torch.ones(high - low, dtype=torch.float64, device="cpu")
            values = ones if weights is None else weights[low:high].double().cpu()
            add_at(total, index, values * sign.double().square() if sign is not None else values)
        return total


def add_at(out: Tensor, index: Tensor, values: Tensor) -> None:
    """out[index] += values, duplicates summed in a fixed order on every device.

    On the CPU one thread adds in turn. Elsewhere `index_add_` would race on duplicates, so values are sorted by
    index (stably) and each run of equal indices is summed on its own.
    """
    if out.device.type == "cpu":
        out.index_add_(0, index, values)
        return
    add_sorted(out, index, values)


def add_sorted(out: Tensor, index: Tensor, values: Tensor) -> None:
    """`add_at` without atomics."""
    index, order = torch.sort(index, stable=True)
    where, lengths = torch.unique_consecutive(index, return_counts=True)
    out[where] += torch.segment_reduce(values[order], "sum", lengths=lengths)
