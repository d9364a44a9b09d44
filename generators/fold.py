"""Fold: a shared array read in runs from hashed starts, with a hashed sign for every row.

Without ``chunk`` every lap of dof rows is one rotation of the array,

    G[i, (h(i // dof) + i mod dof) mod dof] = ±1.

This is RANDOMFOLD of Desai and Shrivastava ("In defense of parameter sharing for
model-compression", ICLR 2024), which uses every entry ⌊rows/dof⌋ or ⌈rows/dof⌉ times. With
``chunk`` every run of that many rows starts at its own place, h(i // chunk) on [0, dof - chunk]:
the ROAST mapping of the same authors, on the flat vector of weights.

When to use: where unpacking must be as fast as can be, or to compare with ROAST.
"""

from typing import Any, final

from torch import Tensor

from lincon.counter import below, bits, checked_bound, key, row_signs, shared
from lincon.errors import LinconError
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.kernels import Loop
from lincon.maps.registry import register
from lincon.shapes import Int

_START_STREAM, _SIGN_STREAM = 20, 21


@register
@final
class Fold(OneNonzero):
    """Runs of a shared array, each from a hashed start: G[i, (start + i) mod dof] = ±1.

    RANDOMFOLD, or ROAST with ``chunk`` (Desai and Shrivastava, ICLR 2024). Cost: O(rows).

    Args:
        rows, dof, seed: as every generator.
        chunk: rows of a run; None for laps of dof rows.

    >>> Fold(rows=5, dof=3, seed=0).sparse().toarray()
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.],
           [0., 0., 1.],
           [1., 0., 0.]])
    """

    name = "fold"
    version = 2

    def __init__(self, rows: int, dof: int, seed: int = 0, *, chunk: int | None = None) -> None:
        super().__init__(rows, checked_bound(dof), seed)
        if chunk is not None and not 1 <= chunk <= dof:
            raise LinconError(f"fold: chunk={chunk}; give an integer from 1 to dof={dof}, or None.")
        self.chunk = chunk

    def options(self) -> dict[str, Any]:
        return {"chunk": self.chunk}

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        run_length, start_count = self._runs
        stream = key(self.seed, _START_STREAM)
        start = shared(lambda run: below(bits(stream, run), start_count), rows // run_length)
        index = (start + rows % run_length) % self.dof
        return index, row_signs(key(self.seed, _SIGN_STREAM), rows)

    def unused(self) -> int:
        """Every lap reads each entry once; runs that are shorter are counted."""
        return super().unused() if self.chunk else max(0, self.dof - self.rows)

    def loop(self) -> Loop | None:
        sign_key, start_key = key(self.seed, _SIGN_STREAM), key(self.seed, _START_STREAM)
        lap, run = (0, self.chunk) if self.chunk else (self.dof, self.dof)
        return Loop("folds", self.dof, sign_key, start_key, self._runs, lap=lap, run=run)

    @property
    def _runs(self) -> tuple[int, int]:
        """The rows of a run, and the number of places where it may start.

        A chunk never runs over the end of the array; a lap goes on at its beginning.
        """
        return (self.chunk, self.dof - self.chunk + 1) if self.chunk else (self.dof, self.dof)
