"""A comparison that chooses its number of seeds: until the main difference is decided.

Results are looked at after 4, 6, 9, ... seeds, and claims are corrected for all the looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from lincon import LinconError
from lincon.tasks.experiments.sweeps.statistics import LOOKS, Difference
from lincon.tasks.experiments.training.run import Run


@dataclass(frozen=True)
class Auto:
    """When a comparison has seeds enough.

    The main difference is that of the table's first line which differs from the reference, in the
    task's score.

    Args:
        matters: differences that are smaller do not matter, in the unit of the score.
        hours: of training that may be spent; the seed at which they are spent is the last.

    Raises:
        LinconError: a number that is not positive.
    """

    matters: float = 0.2
    hours: float = inf

    def __post_init__(self) -> None:
        for name in ("matters", "hours"):
            if not getattr(self, name) > 0:
                raise LinconError(f"{name} is {getattr(self, name)}; it must be positive.")

    def reason(self, main: Difference | None, runs: Sequence[Run]) -> str:
        """Why no more seeds are trained, in a sentence; empty if more are.

        Args:
            main: the main difference, corrected for all looks; None where there is none yet.
            runs: all that have ended.
        """
        seeds = len({run.seed for run in runs})
        if seeds in LOOKS and main is not None:
            if main.is_claimed:
                return f"After {seeds} seeds the main difference excludes zero."
            if main.is_small(self.matters):
                return f"After {seeds} seeds the main difference is smaller than {self.matters:g}."
        spent = sum(sum(run.epoch_seconds) for run in runs) / 3600
        if spent >= self.hours:
            return f"{seeds} seeds have spent the {self.hours:g} hours: what is open stays open."
        if seeds >= LOOKS[-1]:
            return f"{seeds} seeds are the most that are trained: what is open stays open."
        return ""
