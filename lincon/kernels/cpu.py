"""The CPU's kernel: the loops that numba compiles, each run in as many parts as there are threads.

The loops do not hold the interpreter's lock.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from lincon.kernels import Loop, team
from lincon.kernels.loops import Call, loop_for
from lincon.kernels.memory import plain
from lincon.maps.piece import Piece
from lincon.maps.segments import Segments
from lincon.shapes import Float

KINDS = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
"""The types that the loops have."""
HALVES = {torch.float16, torch.bfloat16}
"""Those of rows that `loops.halves` converts, a few at a time."""
LONG = 1 << 19
"""The fewest entries of a lap that threads share. Those of shorter ones go from cache to cache."""
SKIPPING = {"folds", "rademacher", "strata"}
"""Loops that add to some entries in a part of the time that all take."""
FAR = 1 << 20
"""Entries that a cache does not hold: each thread draws all rows, but reads and adds its own alone."""


def write(
    loop: Loop,
    out: Float[Tensor, " n"],
    free: Float[Tensor, " dof"],
    start: int,
    segments: Segments,
    origin: Float[Tensor, " n"] | None = None,
) -> None:
    """See `lincon.kernels.Kernel`."""
    ring = plain(free if out.dtype in KINDS else free.float())
    _walk(loop, [Piece(start, out, segments)], ring, origin=origin)


def accumulate(loop: Loop, out: Float[Tensor, " dof"], pieces: Sequence[Piece]) -> None:
    """See `lincon.kernels.Kernel`."""
    for dtype, same in groupby(pieces, lambda piece: piece.rows.dtype):
        fits = dtype == out.dtype or (dtype in HALVES and out.dtype == torch.float32)
        walked = [
            Piece(start, plain(rows if fits else rows.to(out.dtype)), segments)
            for start, rows, segments in same
        ]
        _walk(loop, walked, out, adds=True)


def _walk(
    loop: Loop,
    pieces: Sequence[Piece],
    ring: Tensor,
    adds: bool = False,
    origin: Tensor | None = None,
) -> None:
    """Write the rows of all pieces, plus ``origin``, or add them to ``ring``."""
    lowest, segments = _laid_out(pieces)
    numbers, table, signs = loop.arrays
    function = loop_for(loop.name, KINDS[ring.dtype], table.dtype)
    start, stop, dof = pieces[0].start, pieces[-1].stop, loop.dof
    call = Call(
        first=start,
        last=stop,
        low=0,
        high=dof,
        adds=int(adds),
        dof=dof,
        rows=lowest,
        ring=ring.data_ptr(),
        segments=_address(segments),
        numbers=_address(numbers),
        table=_address(table),
        signs=_address(signs),
        pieces=len(segments),
        width=len(table),
        signed=len(signs),
    )
    dtype = pieces[0].rows.dtype
    if dtype in HALVES or origin is not None:
        inner = function
        call = call._replace(
            inner=inner.address,
            origin=0 if origin is None else origin.data_ptr(),
            is_bfloat=int(dtype == torch.bfloat16),
        )
        around = "halves" if dtype in HALVES else "onto"
        function = loop_for(around, KINDS[ring.dtype], table.dtype)
    parts = team.parts_of((stop - start) * loop.work)
    if parts == 1 or not adds:
        team.run(function, call, parts)
    elif loop.lap >= LONG:
        for lap in range(start // loop.lap, -(-stop // loop.lap)):
            first, last = max(start, lap * loop.lap), min(stop, (lap + 1) * loop.lap)
            parts = team.parts_of(last - first)
            team.run(function, call._replace(first=first, last=last), parts)
    elif loop.name in SKIPPING or dof >= FAR:
        team.run(function, call._replace(by_entries=1), parts)
    else:
        team.run(function, call, 1)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _laid_out(pieces: Sequence[Piece]) -> tuple[int, np.ndarray]:
    """The lowest address, and all segments as loops read them: where is the row that lies there?"""
    addresses = [piece.rows.data_ptr() for piece in pieces]
    lowest, size = min(addresses), pieces[0].rows.itemsize
    segments = [
        piece.segments.lying_at(piece.start, piece.start - (address - lowest) // size)
        for piece, address in zip(pieces, addresses, strict=True)
    ]
    return lowest, segments[0] if len(segments) == 1 else np.concatenate(segments)
