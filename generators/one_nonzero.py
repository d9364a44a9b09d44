"""Generators with one nonzero per row, G[i, index(i)] = sign(i), as most sharing schemes have.

Unpacking is a gather and the adjoint a sum over equal indices. GᵀG is diagonal and counts how often
each entry is used, so projection is a mean. The sign may be any number: in `lego` it is a
coefficient.

Cost: O(rows) time and the memory of one chunk. Where a kernel has a loop for the map, it makes the
same bits in one pass. A table of all entries is kept for other maps, if it is no larger than
`TABLE_BYTES`, and where no kernel runs up to `TABLE_BYTES_WITHOUT_KERNEL`.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import TABLE_BYTES, Generator, Table, chunks
from lincon.kernels import Kernel, Loop, description, kernel_for
from lincon.kernels.memory import is_plain
from lincon.maps.per_device import per_device
from lincon.maps.piece import Piece
from lincon.maps.scatter import add_at
from lincon.maps.segments import NO_SEGMENTS, Segments
from lincon.shapes import Float, Int, Num

Entries = tuple[Int[Tensor, " n"], Num[Tensor, " n"] | None]
"""Index and sign of rows; no sign where all are +1."""

DTYPES = {torch.float32, torch.float64, torch.float16, torch.bfloat16}
"""What kernels make; float8 and others are left to torch."""

FEW = 1 << 15
"""Rows up to which a step uses torch's operations on a table: it saves calls, not work."""

_APPLYING = (
    *("_write", "write", "prepare"),
    *("_accumulate", "accumulate", "accumulate_all", "prepare_adjoint"),
)

SMALLEST_RUN = 32
"""Rows that read neighbours are moved together; in shorter runs a table that is kept is faster."""

GRAIN = 1 << 14
"""Rows that a compiled loop walks over in the time that it takes to call it."""

TABLE_BYTES_WITHOUT_KERNEL = 64 << 20
"""The largest table that is kept where no kernel runs: there entries take a hundred copies."""

BYTES_PER_ROW = 5
"""What a row takes in the table: an index in four bytes and a sign in one."""


class Compiled(Generator):
    """Base of generators that kernels may make."""

    def _loop_on(self, device: torch.device) -> Loop | None:
        """What a kernel needs to make the map, or None if torch's operations shall do it."""
        return None

    def made_by(self, device: torch.device) -> str:
        return super().made_by(device) if self._loop_on(device) is None else description(device)

    def _compiled(self, out: Tensor) -> tuple[Kernel, Loop] | None:
        """What writes to ``out``, or adds to it, in one pass; None if torch's operations do."""
        device = out.device
        kernel = kernel_for(device)
        fits = type(out) is Tensor and is_plain(out) and out.dtype in DTYPES
        if kernel is None or not fits:
            return None
        loop = self._loop_on(device)
        return None if loop is None else (kernel, loop)

    def write(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        compiled = self._compiled(out)
        if compiled is None:
            return super().write(out, prepared, start, segments)
        kernel, loop = compiled
        kernel.write(loop, out, prepared, start, segments or Segments.plain(len(out)))

    def write_onto(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        origin: Float[Tensor, " n"],
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        compiled = self._compiled(out)
        is_like = (
            type(origin) is Tensor
            and (origin.shape, origin.dtype, origin.device) == (out.shape, out.dtype, out.device)
            and is_plain(origin)
        )
        if compiled is None or type(self).write is not Compiled.write or not is_like:
            return super().write_onto(out, prepared, start, origin, segments)
        kernel, loop = compiled
        kernel.write(loop, out, prepared, start, segments or Segments.plain(len(out)), origin)

    def accumulate(
        self,
        out: Float[Tensor, " prepared_dof"],
        grad: Float[Tensor, " n"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        compiled = self._compiled(out)
        if compiled is None:
            return super().accumulate(out, grad, start, segments)
        kernel, loop = compiled
        plain = segments or Segments.plain(len(grad))
        kernel.accumulate(loop, out, [Piece(start, grad, plain)])

    def accumulate_all(self, out: Float[Tensor, " prepared_dof"], pieces: Sequence[Piece]) -> None:
        compiled = self._compiled(out)
        if compiled is None or type(self).accumulate is not Compiled.accumulate:
            return super().accumulate_all(out, pieces)
        kernel, loop = compiled
        kernel.accumulate(loop, out, [piece.with_segments() for piece in pieces])


class OneNonzero(Compiled):
    """Base of generators whose rows each read one free entry, times a sign.

    A subclass writes `entries` alone.

    >>> class Stripes(OneNonzero):
    ...     name = "stripes"
    ...     def entries(self, rows):
    ...         return rows % self.dof, 1 - rows % 2 * 2
    >>> Stripes(rows=5, dof=3).unpack(torch.tensor([1.0, 2.0, 3.0]))
    tensor([ 1., -2.,  3., -1.,  2.])
    """

    allows_unused = True
    grain = GRAIN
    diagonal_gram = True
    disjoint = True

    @abstractmethod
    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        """Index (int64, in [0, dof)) and sign (int8, ±1; None if all are +1) of rows (int64)."""

    def loop(self) -> Loop | None:
        """What a kernel needs to make the same entries, or None if kernels know no such map."""
        return None

    def has_table(self, device: torch.device) -> bool:
        """Whether a table of all entries is small enough to be kept."""
        most = TABLE_BYTES if kernel_for(device) is not None else TABLE_BYTES_WITHOUT_KERNEL
        return self.rows * BYTES_PER_ROW <= most

    def _entries(self, start: int, stop: int, device: torch.device) -> Entries:
        """`entries` of the rows [start, stop), from the table if there is one."""
        if not self.has_table(device):
            index, sign = self.entries(torch.arange(start, stop, device=device))
            if index.is_cpu:  # other devices would wait for the answer
                self._check_index(index)
            return index, sign
        index, sign = self._table(device)
        return index[start:stop], None if sign is None else sign[start:stop]

    @per_device
    def _table(self, device: torch.device) -> Entries:
        index, sign = self.entries(torch.arange(self.rows, device=device))
        if not index.is_meta:  # kernels do not look where they read and write
            self._check_index(index)
        return index.to(torch.int32), sign

    def _check_index(self, index: Tensor) -> None:
        low, high = map(int, index.aminmax()) if len(index) else (0, 0)
        if low < 0 or high >= self.dof:
            raise LinconError(
                f"{self.name}: entries gives indices from {low} to {high}; they must be within "
                f"[0, {self.dof})."
            )

    @property
    def _is_plain(self) -> bool:
        """Whether `entries` says all: a subclass may have a way of its own to apply its map."""
        own = type(self)
        return all(getattr(own, name) is getattr(OneNonzero, name) for name in _APPLYING)

    @per_device
    def _loop_on(self, device: torch.device) -> Loop | None:
        """`loop`, or that of the table where it may be kept and is faster."""
        if not self._is_plain:
            return None
        loop = self.loop()
        is_fast = loop is not None and (loop.index is not None or loop.run >= SMALLEST_RUN)
        if is_fast or not self.has_table(device):
            return loop
        index, sign = self._table(device)
        if sign is not None and sign.dtype != torch.int8:
            return None
        return Loop("tabled", self.dof, index=index, sign=sign)

    @per_device
    def as_table(self, device: torch.device, dtype: torch.dtype) -> Table | None:
        # Other devices add to an index in any order. Half types are multiplied and summed in float32.
        is_wide = dtype in (torch.float32, torch.float64)
        if self.rows > FEW or device.type != "cpu" or not (is_wide and self._is_plain):
            return None
        index, sign = self._table(device)
        if sign is None:
            return index.long(), torch.ones(self.rows, dtype=dtype, device=device)
        if sign.dtype != torch.int8:  # a coefficient and a multiplier are two roundings, not one
            return None
        return index.long(), sign.to(dtype)

    def made_by(self, device: torch.device) -> str:
        return description(device) if kernel_for(device) is None else super().made_by(device)

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        for low, high in chunks(0, len(out)):
            index, sign = self._entries(start + low, start + high, out.device)
            torch.index_select(prepared, 0, index, out=out[low:high])
            if sign is not None:
                out[low:high].mul_(sign)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        for low, high in chunks(0, len(grad)):
            index, sign = self._entries(start + low, start + high, out.device)
            values = grad[low:high].to(out.dtype)
            add_at(out, index, values if sign is None else values * sign)

    def work(self, rows: int) -> float:
        return rows

    def energy(self, start: int, stop: int) -> float:
        return 1.0

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        total = torch.zeros(self.dof, dtype=torch.float64, device="cpu")
        loop = self.loop()
        unsigned = None if loop is None else loop.unsigned()
        kernel = kernel_for(total.device)
        for low, high in chunks(0, self.rows):
            if weights is None:
                squares = torch.ones(high - low, dtype=torch.float64, device="cpu")
            else:
                squares = weights[low:high].double().cpu()
            if unsigned is not None and kernel is not None:  # all signs are ±1
                one = Segments.plain(high - low)
                kernel.accumulate(unsigned, total, [Piece(low, squares, one)])
                continue
            index, sign = self._entries(low, high, total.device)
            if sign is not None:
                squares = squares * sign.double().square()
            add_at(total, index, squares)
        return total
