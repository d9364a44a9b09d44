"""Tables of the paper (Wang et al., WACV 2023), its figures beside ours.

Every row says which training stands for it; the header names the data really used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.sweeps import compare, gap
from lincon.tasks.experiments.sweeps.report import Result, mean_and_spread, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.task import TASKS, Measure, find_task
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.training import Run

Columns = Mapping[str, Callable[[Sequence[Run]], str]]
"""Columns of ours: what each says of the runs of a row."""


@dataclass(frozen=True)
class Row:
    """A row of the paper.

    ``cell(models, seed)``: the training that stands for it; ``paper``: its figures by column, None where it has none.
    """

    label: str
    cell: Callable[[Sequence[str], int], Cell]
    paper: tuple[float | None, ...]


def compared(sweep: Sweep, objectnet: Path | None = None) -> tuple[Result, Columns]:
    """Train, and say every measure on the test set."""
    return compare.compare(sweep), {
        f"test {m.label}": mean_of(_measured(m)) for m in sweep.measures
    }


def with_gap(sweep: Sweep, objectnet: Path | None = None) -> tuple[Result, Columns]:
    """Train, and say the score on the test set and how far that on the training set is from it."""
    return compare.compare(sweep), gap_columns(sweep.measures[0])


def gap_columns(measure: Measure) -> Columns:
    """The score on the test set, and the gap."""
    return {
        f"test {measure.label}": mean_of(_measured(measure)),
        "gap": mean_of(lambda run: gap.of(run, measure)),
    }


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Args:
        task: name in `TASKS`.
        source: what it is in the paper.
        columns: of the paper's figures.
        models: models by default, as many as its rows speak of.
        ours: trains, and says which columns of ours stand beside them.
        notes: what must be known to read it.
    """

    task: str
    source: str
    columns: tuple[str, ...]
    models: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    ours: Callable[[Sweep, Path | None], tuple[Result, Columns]] = field(default=compared)


def find(name: str) -> PaperTable:
    """The table called ``name``, of whichever task."""
    tables: dict[str, PaperTable] = {}
    for each in TASKS:
        tables |= find_task(each).tables
    return choose("table", name, tables)


def cells(paper: PaperTable, models: Sequence[str], seeds: range) -> list[Cell]:
    """The trainings that a table takes, on as many models as its ``models``."""
    return list(dict.fromkeys(row.cell(models, seed) for seed in seeds for row in paper.rows))


def reproduce(
    paper: PaperTable, models: Sequence[str], sweep: Sweep, objectnet: Path | None = None
) -> Result:
    """Train the cells of a table, and write it with the paper's figures beside ours."""
    ours, columns = paper.ours(sweep, objectnet)
    runs = [run for cell in sweep.cells if (run := sweep.store.get(cell))]
    title = f"{paper.source}: ours on {sweep.title}"
    header = ("row", "ours", "dof", *columns, *paper.columns)
    rows = []
    for row in paper.rows:
        mine = [run for run in runs if _matches(run, row.cell(models, run.seed))]
        figures = ("–" if figure is None else str(figure) for figure in row.paper)
        what = row.label, f"{mine[0].model}, {mine[0].scheme}", f"{mine[0].dof:,}"
        rows.append((*what, *(of(mine) for of in columns.values()), *figures))
    numbers: dict[str, Any] = {"table": [dict(zip(header, cells, strict=True)) for cells in rows]}
    result = replace(
        ours,
        title=title,
        header=header,
        rows=rows,
        numbers={**ours.numbers, **numbers},
        notes=[*paper.notes, *ours.notes],
    )
    result.write(sweep, runs)
    return result


def _matches(run: Run, cell: Cell) -> bool:
    return (run.model, run.scheme, run.asked) == (cell.model, cell.scheme, cell.dof)


def _measured(measure: Measure) -> Callable[[Run], float]:
    return lambda run: measure.factor * run.test[measure.name][-1]


def mean_of(value: Callable[[Run], float]) -> Callable[[Sequence[Run]], str]:
    """A column: mean and spread of ``value`` over the runs of a row."""
    return lambda runs: with_spread(*mean_and_spread([value(run) for run in runs]))
