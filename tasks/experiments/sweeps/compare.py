"""Compare schemes of sharing on equal terms: same model, data, schedule, seeds and DoF."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from typing import Any

from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps import paired
from lincon.tasks.experiments.sweeps.auto import Auto
from lincon.tasks.experiments.sweeps.curves import picture
from lincon.tasks.experiments.sweeps.grid import Grid, Trial, lead, said, tune
from lincon.tasks.experiments.sweeps.report import (
    Result,
    group_seeds,
    header,
    line,
    notes_of,
    with_column,
)
from lincon.tasks.experiments.sweeps.statistics import LOOKS, Difference
from lincon.tasks.experiments.sweeps.sweep import PREDICTIONS, Sweep
from lincon.tasks.experiments.task import Measure, find_task
from lincon.tasks.experiments.training.ranks import exit_unless_first
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run


def compare(sweep: Sweep, grid: Grid | None = None, auto: Auto | None = None) -> Result:
    """Train every cell, and write table, numbers and learning curves; called again it continues.

    All three are written each time another seed is whole.

    Args:
        sweep: the trainings.
        grid: settings that are tuned first, for every scheme alike.
        auto: says when there are seeds enough; the sweep then has the most that may be.
    """
    trials: list[Trial] = []
    if grid is not None:
        sweep, trials = tune(sweep, grid)
    cells: list[Cell] = []
    for cells in sweep.rounds():
        result, reason = _of_seeds(sweep, cells, trials, auto)
        result.write(sweep, sweep.runs_of(cells))
        if reason:
            break
    exit_unless_first()
    show(replace(sweep, cells=cells))
    return result


def _of_seeds(
    sweep: Sweep, cells: Sequence[Cell], trials: Sequence[Trial], auto: Auto | None
) -> tuple[Result, str]:
    """The result of some seeds, and why they suffice, if `Auto` says so."""
    runs, looks = sweep.runs_of(cells), len(LOOKS) if auto else 1
    title = replace(sweep, cells=cells).title
    result = summarise(runs, title, sweep.measures, sweep.grains, looks)
    reason = auto.reason(_main(result, sweep.measures[0]), runs) if auto else ""
    notes = [*result.notes, *baseline_note(sweep), *notes_of(runs)]
    if reason:
        notes.append(reason)
    elif left := len(_seeds(sweep.cells)) - len(_seeds(cells)):
        notes.append(f"So far: {left} more seed{'' if left == 1 else 's'} may be trained.")
    result = replace(result, notes=notes, runs=runs)
    return (_with_picked(result, sweep, runs, trials) if trials else result), reason


def _main(result: Result, score: Measure) -> Difference | None:
    """The main difference: that of the first line which differs from the reference."""
    found = [entry["differences"].get(score.name) for entry in result.numbers["table"]]
    return next((Difference(**each) for each in found if each), None)


def _seeds(cells: Sequence[Cell]) -> set[int]:
    return {cell.seed for cell in cells}


def _with_picked(
    result: Result, sweep: Sweep, runs: Sequence[Run], trials: Sequence[Trial]
) -> Result:
    """The result with what was picked for each line, and how."""
    tuned, measure = sweep.choices["tuned"], sweep.measures[0]
    texts = [_picked(sweep, group[0], trials) for group in group_seeds(runs)]
    tried = "; ".join(dict.fromkeys(said(trial.settings) for trial in trials))
    seeds = f"{tuned['seeds']} other seed{'' if tuned['seeds'] == 1 else 's'}"
    note = (
        f"Picked for each line alike by {measure.label} on {tuned['held_out']:,} training items "
        f"that are held out, with {seeds}, from: {tried}. The test set is not looked at. Beside "
        "what was picked stands its lead over the next; where that is small the pick is partly "
        "chance, which is in no interval."
    )
    return replace(
        with_column(result, "picked", texts),
        numbers={**result.numbers, "trials": [asdict(trial) for trial in trials]},
        notes=[*result.notes, note],
    )


def _picked(sweep: Sweep, run: Run, trials: Sequence[Trial]) -> str:
    """What was picked for a run's line, and its lead over the next."""
    cell = Cell(run.model, run.scheme, run.asked, 0, sweep.recipe.task)
    own = [
        trial
        for trial in trials
        if (trial.model, trial.scheme, str(trial.asked)) == (run.model, run.scheme, str(run.asked))
    ]
    ahead, measure = lead(own, sweep.measures[0]), sweep.measures[0]
    by = f", by {ahead:.{measure.digits}f}" if isfinite(ahead) else ""
    return f"{said(sweep.settings_of(cell) or {})}{by}"


def baseline_note(sweep: Sweep) -> list[str]:
    """The measures of a prediction that ignores the input, in a sentence, if the task has one."""
    baseline = find_task(sweep.recipe.task).baseline
    if baseline is None:
        return []
    values = baseline(sweep.data)
    texts = [f"{measure.label} {measure.shown(values)}" for measure in sweep.measures]
    return [
        "Predicting the mean of the training set everywhere, "
        f"without looking at the input: {', '.join(texts)}."
    ]


def show(sweep: Sweep) -> None:
    """Write `predictions.png` for the models of the first seed, if the task draws predictions."""
    draw = find_task(sweep.recipe.task).show
    if draw is None:
        return
    first_seed = sweep.cells[0].seed
    cells = [cell for cell in sweep.cells if cell.seed == first_seed]
    models = {short_name(cell, cells): sweep.load(cell) for cell in cells}
    write_output(sweep.out / PREDICTIONS, draw(models, sweep.data), sweep.mark)


def short_name(cell: Cell, cells: Sequence[Cell]) -> str:
    """As short a name as tells a cell from the others: what differs among them, a part a line."""
    dofs = {other.dof for other in cells if other.dof is not None}
    parts = []
    if len({other.model for other in cells}) > 1:
        parts.append(cell.model)
    if len({other.scheme for other in cells}) > 1:
        parts.append(cell.scheme)
    if len(dofs) > 1 and cell.dof is not None:
        parts.append(str(cell.dof))
    return "\n".join(parts) or cell.scheme


def summarise(
    runs: Sequence[Run],
    title: str,
    measures: Sequence[Measure],
    grains: Mapping[str, float] | None = None,
    looks: int = 1,
) -> Result:
    """The table of a comparison; where there are several models, its first column names them.

    ``grains`` are the smallest steps of measures, by name; claims are corrected for all ``looks``.
    """
    groups = group_seeds(runs)
    deciding = [measure for measure in measures if measure.decides]
    found = paired.paired(groups, deciding, grains, looks)
    reference = paired.reference_of(groups) if any(_any(row) for row in found.values()) else ""
    table = [
        replace(line(group, measures), differences=found.get(place, {}))
        for place, group in enumerate(groups)
    ]
    several_models = len({entry.model for entry in table}) > 1
    rows = []
    for entry in table:
        scheme, *others = entry.cells(measures, reference)
        rows.append((f"{entry.model}, {scheme}" if several_models else scheme, *others))
    return Result(
        title=title,
        header=header(measures, reference),
        texts=rows,
        numbers={"table": [asdict(entry) for entry in table]},
        figure=picture(runs, title, measures[0]),
        notes=paired.note(groups, found, looks),
    )


def _any(differences: Mapping[str, Any]) -> bool:
    return any(difference is not None for difference in differences.values())
