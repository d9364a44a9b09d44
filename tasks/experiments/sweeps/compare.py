"""Compare schemes of sharing on equal terms: same model, data, schedule, seeds and DoF."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps.curves import picture
from lincon.tasks.experiments.sweeps.report import Result, header, lines, notes_of
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.task import Measure, find_task
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run


def compare(sweep: Sweep) -> Result:
    """Train every cell, and write table, numbers and learning curves; called again it continues."""
    runs = sweep.run()
    result = summarise(runs, sweep.title, sweep.measures)
    result = replace(result, notes=[*baseline_note(sweep), *notes_of(runs)])
    result.write(sweep, runs)
    show(sweep)
    return result


def baseline_note(sweep: Sweep) -> list[str]:
    """A sentence on what every measure is of a prediction without looking, if the task knows one."""
    baseline = find_task(sweep.recipe.task).baseline
    if baseline is None:
        return []
    found = baseline(sweep.data)
    said = ", ".join(f"{m.label} {m.factor * found[m.name]:.2f}" for m in sweep.measures)
    return [f"Predicting the mean of the training set everywhere, without looking: {said}."]


def show(sweep: Sweep) -> None:
    """Write `predictions.png`, of what the models of the first seed make of test items, if the task draws such."""
    draw = find_task(sweep.recipe.task).show
    if draw is None:
        return
    cells = [cell for cell in sweep.cells if cell.seed == sweep.cells[0].seed]
    models = {short(cell, cells): sweep.load(cell) for cell in cells}
    write_output(sweep.out / "predictions.png", draw(models, sweep.data))


def short(cell: Cell, cells: Sequence[Cell]) -> str:
    """As short a name as tells a cell from the others."""
    parts = (cell.model, cell.scheme, "" if cell.dof is None else str(cell.dof))
    every: list[set[Any]] = [
        {c.model for c in cells},
        {c.scheme for c in cells},
        {c.dof for c in cells} - {None},
    ]
    return (
        "\n".join(
            part for part, values in zip(parts, every, strict=True) if part and len(values) > 1
        )
        or cell.scheme
    )


def summarise(runs: Sequence[Run], title: str, measures: Sequence[Measure]) -> Result:
    """The table of a comparison; a column says the model where there are several."""
    table = lines(runs, measures)
    many = len({entry.model for entry in table}) > 1
    rows = [((f"{e.model}, {e.scheme}", *e.cells()[1:]) if many else e.cells()) for e in table]
    numbers = {"table": [asdict(entry) for entry in table]}
    return Result(title, header(measures), rows, numbers, picture(runs, title, measures[0]))
