"""What was picked for each line of a table, from which trials, and by which lead."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from math import isfinite

from lincon.tasks.experiments.sweeps.grid import lead, said
from lincon.tasks.experiments.sweeps.report import Result, with_column
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run


def with_picked(result: Result, sweep: Sweep, lines: Sequence[Run]) -> Result:
    """The result with what was picked for each line and how, if anything was tuned.

    ``lines`` has a run of each line, in the order of the table.
    """
    grid, measure = sweep.grid, sweep.measures[0]
    if grid is None:
        return result
    texts = [picked(sweep, run) for run in lines]
    tried = "; ".join(dict.fromkeys(said(trial.settings) for trial in sweep.trials))
    seeds = f"{grid.seeds} other seed{'' if grid.seeds == 1 else 's'}"
    note = (
        f"Picked for each line alike by {measure.label} on {grid.held_out:,} training items "
        f"that are held out, with {seeds}, from: {tried}. The test set is not looked at. Beside "
        "what was picked stands its lead over the next; where that is small the pick is partly "
        "chance, which is in no interval."
    )
    return replace(
        with_column(result, "picked", texts),
        numbers={**result.numbers, "trials": [asdict(trial) for trial in sweep.trials]},
        notes=[*result.notes, note],
    )


def picked(sweep: Sweep, run: Run) -> str:
    """What was picked for a run's line, and its lead over the next."""
    cell = Cell(run.model, run.scheme, run.asked, 0, sweep.recipe.task)
    own = [
        trial
        for trial in sweep.trials
        if (trial.model, trial.scheme, str(trial.asked)) == (run.model, run.scheme, str(run.asked))
    ]
    ahead, measure = lead(own, sweep.measures[0]), sweep.measures[0]
    by = f", by {ahead:.{measure.digits}f}" if isfinite(ahead) else ""
    return f"{said(sweep.settings_of(cell) or {})}{by}"
