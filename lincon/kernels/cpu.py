"""The CPU's kernel: the loops that numba compiles, each run in as many parts as there are threads.

The loops do not hold the interpreter's lock.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lincon.kernels import Loop, team
from lincon.kernels.loops import Call, loop_for
from lincon.kernels.memory import plain
from lincon.maps.piece import Piece
from lincon.maps.segments import Segments
from lincon.shapes import Float

NARROW = 1 << 18
"""Rows of another dtype than the loops' that are converted at a time."""
KINDS = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
"""The types that the loops have; others are converted, `NARROW` rows at a time."""
SHARE = 1 << 16
"""The fewest rows for which a further thread is worth calling."""
LONG = 1 << 19
"""Entries of which each thread adds to its own in turn, lap by lap: shorter laps go back and forth."""
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
) -> None:
    """See `lincon.kernels.Kernel`."""
    if out.dtype in KINDS:
        _walk(loop, [Piece(start, out, segments)], plain(free))
        return
    ring = free.float()
    for low in range(0, len(out), NARROW):
        narrow = out[low : low + NARROW]
        wide = torch.empty(len(narrow))
        _walk(loop, [Piece(start + low, wide, segments.within(low, low + len(wide)))], ring)
        narrow.copy_(wide)


def accumulate(loop: Loop, out: Float[Tensor, " dof"], pieces: Sequence[Piece]) -> None:
    """See `lincon.kernels.Kernel`."""
    if not pieces:
        return
    if all(piece.rows.dtype == out.dtype for piece in pieces):
        given = [Piece(start, plain(rows), segments) for start, rows, segments in pieces]
        _walk(loop, given, out, adds=True)
        return
    for start, rows, segments in pieces:
        for low in range(0, len(rows), NARROW):
            wide = plain(rows[low : low + NARROW].to(out.dtype))
            within = segments.within(low, low + len(wide))
            _walk(loop, [Piece(start + low, wide, within)], out, adds=True)


def _walk(loop: Loop, pieces: Sequence[Piece], ring: Tensor, adds: bool = False) -> None:
    """Write the rows of all pieces, or add them to ``ring``."""
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
    parts = _parts((stop - start) * loop.work)
    if parts == 1 or not adds:
        team.run(function, call, parts)
    elif loop.lap >= LONG:
        for lap in range(start // loop.lap, -(-stop // loop.lap)):
            first, last = max(start, lap * loop.lap), min(stop, (lap + 1) * loop.lap)
            team.run(function, call._replace(first=first, last=last), _parts(last - first))
    elif loop.name in SKIPPING or dof >= FAR:
        team.run(function, call._replace(by_entries=1), parts)
    else:
        team.run(function, call, 1)


def _parts(work: int) -> int:
    """As many as there are threads and shares of work."""
    return max(1, min(torch.get_num_threads(), work // SHARE))


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
