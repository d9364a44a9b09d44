"""The CPU's kernel: the loops that numba compiles, cut into parts for a pool of threads.

The loops release the interpreter's lock. numba's own threads are not used: they fight with torch's,
and hang after a fork. A forked process makes a pool of its own.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lincon.kernels import Loop, loops
from lincon.kernels.memory import plain
from lincon.maps.piece import Piece
from lincon.maps.segments import Segments
from lincon.shapes import Float

NARROW = 1 << 18
"""Rows of another dtype than the loops' that are converted at a time."""
LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
"""The types that the loops have; others are converted, `NARROW` rows at a time."""
SHARE = 1 << 21
"""The fewest rows for which a further thread is worth waking.

torch's own threads spin for some milliseconds after each operation, and it would share a core with
them: up to three million rows two threads took as long as one, or up to 1.4 times as long.
"""
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
    if out.dtype in LIKE:
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
    function: Callable[..., None] = getattr(loops, loop.name)
    lowest, segments = _laid_out(pieces)
    given = lowest, ring.data_ptr(), LIKE[ring.dtype], segments, loop.arrays
    start, stop, dof = pieces[0].start, pieces[-1].stop, loop.dof
    work = (stop - start) * loop.work
    if work < 2 * SHARE:
        function(*given, (start, stop, 0, dof, int(adds), dof))
        return

    def walk_over(low: int, high: int) -> None:
        function(*given, (low, high, 0, dof, int(adds), dof))

    def add_to(low: int, high: int) -> None:
        function(*given, (start, stop, low, high, 1, dof))

    if not adds:
        _in_threads(walk_over, (start, stop), work)
    elif loop.lap >= 2 * SHARE:
        for lap in range(start // loop.lap, -(-stop // loop.lap)):
            low, high = max(start, lap * loop.lap), min(stop, (lap + 1) * loop.lap)
            _in_threads(walk_over, (low, high), high - low)
    elif loop.name in SKIPPING or dof >= FAR:
        _in_threads(add_to, (0, dof), work)
    else:
        walk_over(start, stop)


def _laid_out(pieces: Sequence[Piece]) -> tuple[int, np.ndarray]:
    """The lowest address, and all segments as loops read them: where is the row that lies there?"""
    addresses = [piece.rows.data_ptr() for piece in pieces]
    lowest, size = min(addresses), pieces[0].rows.itemsize
    segments = [
        piece.segments.lying_at(piece.start, piece.start - (address - lowest) // size)
        for piece, address in zip(pieces, addresses, strict=True)
    ]
    return lowest, segments[0] if len(segments) == 1 else np.concatenate(segments)


def _in_threads(task: Callable[[int, int], None], of: tuple[int, int], work: int) -> None:
    """Call ``task`` on parts of a range, as many as there are threads and shares of work."""
    parts = max(1, min(torch.get_num_threads(), work // SHARE))
    low, high = of
    cuts = [low + (high - low) * part // parts // 64 * 64 for part in range(parts)] + [high]
    mine, *others = pairwise(cuts)
    running = [_pool(os.getpid(), parts - 1).submit(task, *part) for part in others]
    task(*mine)
    for future in running:
        future.result()


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """The pool of a process; a forked one has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="lincon")
