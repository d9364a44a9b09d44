"""Compare schemes of sharing on equal terms: same model, data, schedule, seeds and DoF."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps import paired
from lincon.tasks.experiments.sweeps.auto import Auto
from lincon.tasks.experiments.sweeps.curves import picture
from lincon.tasks.experiments.sweeps.picked import with_picked
from lincon.tasks.experiments.sweeps.report import (
    Result,
    group_seeds,
    header,
    line,
    notes_of,
)
from lincon.tasks.experiments.sweeps.statistics import LOOKS, Difference
from lincon.tasks.experiments.sweeps.sweep import PREDICTIONS, Sweep
from lincon.tasks.experiments.sweeps.tune import tune
from lincon.tasks.experiments.task import Measure, find_task
from lincon.tasks.experiments.training.ranks import exit_unless_first
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run


def compare(sweep: Sweep, auto: Auto | None = None) -> Result:
    """Train every cell, and write table, numbers and learning curves; called again it continues.

    All three are written each time another seed is whole.

    Args:
        sweep: the trainings.
        auto: says when there are seeds enough; the sweep then has the most that may be.
    """
    sweep = tune(sweep)
    cells: list[Cell] = []
    for cells in sweep.rounds():
        result, reason = _of_seeds(sweep, cells, auto)
        result.write(sweep, sweep.runs_of(cells))
        if reason:
            break
    exit_unless_first()
    show(replace(sweep, cells=cells))
    return result


def _of_seeds(sweep: Sweep, cells: Sequence[Cell], auto: Auto | None) -> tuple[Result, str]:
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
    return with_picked(result, sweep, [group[0] for group in group_seeds(runs)]), reason


def _main(result: Result, score: Measure) -> Difference | None:
    """The main difference: that of the first line which differs from the reference."""
    found = [entry["differences"].get(score.name) for entry in result.numbers["table"]]
    return next((Difference(**each) for each in found if each), None)


def _seeds(cells: Sequence[Cell]) -> set[int]:
    return {cell.seed for cell in cells}


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
