"""Compare schemes of sharing on equal terms: same model, data, schedule, seeds and DoF."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps import paired
from lincon.tasks.experiments.sweeps.curves import picture
from lincon.tasks.experiments.sweeps.report import Result, group_seeds, header, line, notes_of
from lincon.tasks.experiments.sweeps.sweep import PREDICTIONS, Sweep
from lincon.tasks.experiments.task import Measure, find_task
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run


def compare(sweep: Sweep) -> Result:
    """Train every cell, and write table, numbers and learning curves; called again it continues."""
    runs = sweep.run()
    result = summarise(runs, sweep.title, sweep.measures, sweep.grains)
    result = replace(result, notes=[*result.notes, *baseline_note(sweep), *notes_of(runs)])
    result.write(sweep, runs)
    show(sweep)
    return result


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
) -> Result:
    """The table of a comparison; where there are several models, its first column names them.

    ``grains`` are the smallest steps of measures, by name.
    """
    groups = group_seeds(runs)
    deciding = [measure for measure in measures if measure.decides]
    found = paired.paired(groups, deciding, grains)
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
        notes=paired.note(groups, found),
    )


def _any(differences: Mapping[str, Any]) -> bool:
    return any(difference is not None for difference in differences.values())
