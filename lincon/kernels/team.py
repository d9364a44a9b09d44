"""The threads that run a loop: torch's own, or a pool where there are none that can be asked.

torch runs its operations in a team of OpenMP, which waits for the next one at full speed for some
milliseconds. Other threads would share the processors with it. So a loop is given to that team, by
the function that compilers call for a parallel region. A forked process has lost the team, and one
of its own would wait for ever: it has a pool.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import torch

from lincon.kernels import HOME
from lincon.kernels.loops import Call


class Team(NamedTuple):
    """Functions of the OpenMP that torch is linked with.

    Attributes:
        parallel: runs a C function of one address in some threads.
        thread: address of the function that tells which thread runs.
        threads: address of that which tells how many there are.
    """

    parallel: Any
    thread: int
    threads: int

    def run(self, function: int, record: bytes, threads: int) -> None:
        """Run a C function, by its address, in some threads, each of which gets the record."""
        self.parallel(function, record, threads, 0)


def run(loop: Any, call: Call, parts: int) -> None:
    """Run a loop of `lincon.kernels.loops`, in so many parts at once."""
    if parts == 1:
        loop.ctypes(packed(call))
    elif (team := _team(os.getpid())) is not None:
        there = call._replace(parts=parts, thread=team.thread, threads=team.threads)
        # All of torch's threads: a smaller team would end the others, and torch would make new ones.
        team.run(loop.address, packed(there), torch.get_num_threads())
    else:
        mine, *others = (packed(call._replace(part=part, parts=parts)) for part in range(parts))
        running = [_pool(os.getpid(), parts - 1).submit(loop.ctypes, other) for other in others]
        try:
            loop.ctypes(mine)
        finally:  # they write to memory that a caller who is interrupted lets go of
            wait(running)


def parts_of(work: int) -> int:
    """In how many parts so many rows are worth doing."""
    if work < 2 * SHARE:  # most calls: they need not ask for a team
        return 1
    share = SHARE if _team(os.getpid()) is not None else POOL_SHARE
    return max(1, min(torch.get_num_threads(), work // share))


SHARE = 1 << 16
"""The fewest rows for which a further thread is worth calling."""
POOL_SHARE = 1 << 21
"""The same for one of a pool, which may have to wait for torch's to stop spinning."""
_RECORD = Struct(f"{len(Call._fields)}q")


def packed(call: Call) -> bytes:
    """A call as a loop reads it."""
    return _RECORD.pack(*call)


@cache
def _team(process: int) -> Team | None:
    """The team of a process; None if it is forked, or where torch runs on something else."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if process != HOME or not library.exists():
        return None
    try:  # a library tells of the functions of those that it is linked with, too
        linked = ctypes.CDLL(str(library))
        parallel = linked.GOMP_parallel
        told = linked.omp_get_thread_num, linked.omp_get_num_threads
    except (OSError, AttributeError):
        return None
    parallel.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint
    parallel.restype = None
    return Team(parallel, *(ctypes.cast(each, ctypes.c_void_p).value or 0 for each in told))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """The pool of a process; a forked one has none of its parent's threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="lincon")
