"""The CPU's kernel: the loops that numba compiles, cut into parts for a pool of threads.

The loops release the interpreter's lock. numba's own threads are not used: they fight with torch's,
and hang after a fork. A forked process makes a pool of its own.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lincon.kernels import Loop, loops
from lincon.kernels.memory import plain
from lincon.maps.segments import Segments
from lincon.shapes import Float

NARROW = 1 << 18
"""Rows of another dtype than the loops' that are converted at a time."""
LIKE = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
"""The types that the loops have; others are converted, `NARROW` rows at a time."""
SHARE = 1 << 17
"""The fewest rows for which a further thread is worth waking."""
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
    absolute = segments.starting_at(start)
    if out.dtype in LIKE:
        _walk(loop, out, free, start, absolute)
        return
    ring = free.float()
    for low in range(0, len(out), NARROW):
        narrow = out[low : low + NARROW]
        wide = torch.empty(len(narrow))
        _walk(loop, wide, ring, start + low, absolute)
        narrow.copy_(wide)


def accumulate(
    loop: Loop,
    out: Float[Tensor, " dof"],
    grad: Float[Tensor, " n"],
    start: int,
    segments: Segments,
) -> None:
    """See `lincon.kernels.Kernel`."""
    absolute = segments.starting_at(start)
    if grad.dtype == out.dtype:
        _walk(loop, grad, out, start, absolute, adds=True)
        return
    for low in range(0, len(grad), NARROW):
        wide = grad[low : low + NARROW].to(out.dtype)
        _walk(loop, wide, out, start + low, absolute, adds=True)


def _walk(
    loop: Loop, rows: Tensor, ring: Tensor, start: int, segments: np.ndarray, adds: bool = False
) -> None:
    """Write all of ``rows``, the first of which is ``start``, or add them to ``ring``."""
    function: Callable[..., None] = getattr(loops, loop.name)
    rows, ring = plain(rows), plain(ring)
    given = rows.data_ptr(), ring.data_ptr(), LIKE[rows.dtype], segments, loop.arrays
    size, dof = rows.shape[0], loop.dof
    work = size * loop.work
    if work < 2 * SHARE:
        function(*given, (start, start, start + size, 0, dof, int(adds), dof))
        return

    def walk_over(low: int, high: int) -> None:
        function(*given, (start, low, high, 0, dof, int(adds), dof))

    def add_to(low: int, high: int) -> None:
        function(*given, (start, start, start + size, low, high, 1, dof))

    if not adds:
        _in_threads(walk_over, (start, start + size), work)
    elif loop.lap >= 2 * SHARE:
        for lap in range(start // loop.lap, -(-(start + size) // loop.lap)):
            low, high = max(start, lap * loop.lap), min(start + size, (lap + 1) * loop.lap)
            _in_threads(walk_over, (low, high), high - low)
    elif loop.name in SKIPPING or dof >= FAR:
        _in_threads(add_to, (0, dof), work)
    else:
        walk_over(start, start + size)


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
