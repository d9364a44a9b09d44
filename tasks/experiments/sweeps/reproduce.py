"""Tables of the paper (Wang et al., WACV 2023), its figures beside ours.

Every row names the training that stands for it; the header names the data that were used.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.sweeps.columns import compared
from lincon.tasks.experiments.sweeps.picked import picked
from lincon.tasks.experiments.sweeps.report import Result, with_column
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tables import Columns, PaperTable, Row
from lincon.tasks.experiments.sweeps.tune import tune
from lincon.tasks.experiments.task import TASKS, find_task
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run


def find_table(name: str) -> PaperTable:
    """The table called ``name``, of whichever task. Raises LinconError for an unknown name."""
    tables: dict[str, PaperTable] = {}
    for task in TASKS:
        tables |= find_task(task).tables
    return choose("table", name, tables)


def cells(paper: PaperTable, models: Sequence[str], seeds: range) -> list[Cell]:
    """The trainings of a table, each once, on as many models as its ``models``."""
    return list(dict.fromkeys(row.cell(models, seed) for seed in seeds for row in paper.rows))


def reproduce(
    paper: PaperTable, models: Sequence[str], sweep: Sweep, objectnet: Path | None = None
) -> Result:
    """Train the cells of a table, and write it with the paper's figures beside ours.

    Args:
        paper: the table.
        models: names of the models, as many as the ``models`` of the table.
        sweep: the trainings, `cells` of this table and these models.
        objectnet: folder of ObjectNet, for tables that measure on it.
    """
    sweep = tune(sweep)
    train = paper.ours or compared
    result, columns = train(sweep, objectnet)
    runs = sweep.finished()
    header = ("row", "ours", "dof", *columns, *paper.columns)
    rows = [_line(row, _runs_of(row, models, runs), columns) for row in paper.rows]
    table = [dict(zip(header, line, strict=True)) for line in rows]
    reproduced = replace(
        result,
        title=f"{paper.source}: ours on {sweep.title}",
        header=header,
        texts=rows,
        numbers={**result.numbers, "table": table},
        notes=[*paper.notes, *result.notes],
    )
    if sweep.trials:
        firsts = [_runs_of(row, models, runs)[0] for row in paper.rows]
        reproduced = with_column(reproduced, "picked", [picked(sweep, run) for run in firsts])
    reproduced.write(sweep, runs)
    return reproduced


def _runs_of(row: Row, models: Sequence[str], runs: Sequence[Run]) -> list[Run]:
    """The runs, of all seeds, that stand for a row."""
    return [run for run in runs if _is_of(run, row.cell(models, run.seed))]


def _is_of(run: Run, cell: Cell) -> bool:
    return (run.model, run.scheme, run.asked) == (cell.model, cell.scheme, cell.dof)


def _line(row: Row, runs: Sequence[Run], columns: Columns) -> tuple[str, ...]:
    """A line of the table: what was trained, our columns, the paper's figures."""
    first = runs[0]
    trained = row.label, f"{first.model}, {first.scheme}", f"{first.dof:,}"
    ours = [text_of(runs) for text_of in columns.values()]
    figures = ["–" if figure is None else str(figure) for figure in row.paper]
    return (*trained, *ours, *figures)
