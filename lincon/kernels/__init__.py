"""Compiled kernels for maps, one module a target.

A generator says what its map is by a `Loop`, and `kernel_for` finds what runs it on a device, if
anything does. A kernel makes the bits of the generator's `entries`. What no kernel does is done by
torch's operations, more slowly.
"""

import os
import struct
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lincon.counter import halves
from lincon.errors import LinconWarning
from lincon.kernels.memory import array_of
from lincon.shapes import Float, Integer

if TYPE_CHECKING:
    from lincon.maps.piece import Piece
    from lincon.maps.segments import Segments


HOME = os.getpid()
"""The process that has imported this, of which a forked one has lost the threads."""


@dataclass(frozen=True, eq=False)
class Loop:
    """A map, as kernels read it: one with one nonzero a row, or some that have many.

    Attributes:
        name: "laps", "folds", "buckets", "decks" or "tabled", a function of every target; and
            "rademacher" and "strata", of the CPU's.
        sign_key: the key of `lincon.counter.row_signs`, or None where all signs are +1.
        dof: the width of the map.
        key: the key of the entries.
        more: further numbers, whose meaning is the loop's.
        work: about how many nonzeros a row has.
        lap: rows, counted from 0, that read no entry twice; 0 if there is no such number.
        run: how many rows in sequence read neighbours, but for the first and the last.
        index: of "tabled", (rows,) integers. An index of dof is a row of zeros.
        sign: of "tabled", (rows,) int8, or None where all signs are +1.
        drawn: of "strata", int32 (strata * dof,), what would be drawn anew each time; (0,) if that
            is too much to be kept.
        kept: of "laps", of how many slots the CPU keeps what is drawn: all, or none.
    """

    name: str
    dof: int
    sign_key: int | None = None
    key: int = 0
    more: tuple[int, ...] = ()
    work: int = 1
    lap: int = 0
    run: int = 1
    index: Integer[Tensor, " rows"] | None = None
    sign: Integer[Tensor, " rows"] | None = None
    drawn: Integer[Tensor, " draws"] | None = None
    kept: int = 0

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the compiled loops read: all numbers as uint64, a table of integers, and int8 signs."""
        signs = (0, 0, 0) if self.sign_key is None else (*halves(self.sign_key), 1)
        numbers = np.array((*signs, self.dof, *halves(self.key), *self.more), np.uint64)
        sign = np.empty(0, np.int8) if self.sign is None else array_of(self.sign)
        given = self.drawn if self.index is None else self.index
        table = np.empty(self.kept, np.int32) if given is None else array_of(given)
        if self.kept:
            from lincon.kernels.loops import draw_slots  # which needs numba

            draw_slots(table, numbers)
        return numbers, table, sign

    def unsigned(self) -> "Loop":
        """The same entries, with +1 for every sign."""
        return replace(self, sign_key=None, sign=None)


def as_bits(number: float) -> int:
    """The 64 bits of a float64, for `Loop.more`.

    >>> hex(as_bits(1.0))
    '0x3ff0000000000000'
    """
    bits: int = struct.unpack("Q", struct.pack("d", number))[0]
    return bits


class Kernel(Protocol):
    """What a target does. The tensors are contiguous, on its device, and of one dtype."""

    def write(
        self,
        loop: Loop,
        out: Float[Tensor, " n"],
        free: Float[Tensor, " dof"],
        start: int,
        segments: "Segments",
        origin: Float[Tensor, " n"] | None = None,
    ) -> None:
        """out[:] = rows [start, start + n) of G @ free, each segment times its multiplier.

        ``origin``, of the same kind as ``out``, is then added.
        """

    def accumulate(self, loop: Loop, out: Float[Tensor, " dof"], pieces: Sequence["Piece"]) -> None:
        """out += Gᵀ @ rows of all pieces, in the order of rows, each segment times its multiplier.

        A piece has segments. Every entry is added to in the order of rows, so the bits depend on no
        number of threads. ``out`` is float32 or wider.
        """


@cache
def kernel_for(device: torch.device) -> Kernel | None:
    """The kernel for tensors of a device, or None if there is none."""
    if device.type == "cpu":
        return _cpu()
    return _gpu(device) if device.type == "cuda" else None


def description(device: torch.device) -> str:
    """What makes weights on a device, for people."""
    if kernel_for(device) is not None:
        return "compiled (numba)" if device.type == "cpu" else "compiled (Triton)"
    if device.type == "cpu":
        return "torch operations; pip install 'lincon-torch[fast]' compiles kernels"
    return "torch operations"


def release() -> None:
    """Let go of what kernels keep on GPUs for the maps of all models.

    Maps whose rows are drawn one by one (hash, random, tables) keep their rows in the order of
    entries, 4 bytes a row, for adjoints without atomics. They are sorted again at the next one.
    """
    if gpu := sys.modules.get("lincon.kernels.gpu"):
        gpu.release()


def kept_for(loop: Loop) -> object:
    """What kernels keep on GPUs for a map."""
    gpu = sys.modules.get("lincon.kernels.gpu")
    return None if gpu is None else gpu.kept_for(loop)


@cache
def _cpu() -> Kernel | None:
    """The module for CPUs; None without numba, or if it does not work here."""
    if find_spec("numba") is None:
        return None
    try:
        from lincon.kernels import cpu
    except ImportError as error:  # of numba: it asks for another NumPy, or its library is broken
        warnings.warn(
            f"numba cannot be imported ({error}): weights are made by torch operations, which are "
            "slower. Install the numba that fits NumPy.",
            LinconWarning,
            stacklevel=2,
        )
        return None
    return cpu


@cache
def _gpu(device: torch.device) -> Kernel | None:
    """The module for CUDA devices; None without Triton, or if its loops do not work on a device."""
    if find_spec("triton") is None:
        return None
    try:
        from lincon.kernels import gpu

        gpu.check(device)
    except Exception as error:  # of Triton, a C compiler, a driver: each has classes of its own
        warnings.warn(
            f"Triton's kernels do not work here ({type(error).__name__}: {error}): weights on GPUs "
            "are made by torch operations, which are slower.",
            LinconWarning,
            stacklevel=2,
        )
        return None
    return gpu
