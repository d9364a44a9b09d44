"""Our columns in a table of the paper.

`compared` and `with_gap` train a sweep and say which columns stand beside the paper's figures.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from lincon.tasks.experiments.sweeps import compare, gap
from lincon.tasks.experiments.sweeps.report import Result, mean_and_spread, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tables import Columns
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run


def compared(sweep: Sweep, objectnet: Path | None = None) -> tuple[Result, Columns]:
    """Train a sweep; the columns are every measure on the test set."""
    result = compare.compare(sweep)
    return result, {
        f"test {measure.label}": mean_of(_on_test(measure)) for measure in sweep.measures
    }


def with_gap(sweep: Sweep, objectnet: Path | None = None) -> tuple[Result, Columns]:
    """Train a sweep; the columns are the score on the test set, and the gap."""
    return compare.compare(sweep), gap_columns(sweep.measures[0])


def gap_columns(measure: Measure) -> Columns:
    """The score on the test set, and the gap to that on the training set."""
    return {
        f"test {measure.label}": mean_of(_on_test(measure)),
        "gap": mean_of(lambda run: gap.gap_of(run, measure)),
    }


def mean_of(value: Callable[[Run], float]) -> Callable[[Sequence[Run]], str]:
    """A column: mean and spread of ``value`` over the runs of a row."""
    return lambda runs: with_spread(*mean_and_spread([value(run) for run in runs]))


def _on_test(measure: Measure) -> Callable[[Run], float]:
    return lambda run: measure.last(run.test)
