"""What a table of the paper is: rows that name trainings, and the paper's figures beside ours.

Tasks declare such tables, so nothing here depends on tasks or trainings. Where a type is `Any`, the
text names it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lincon.tasks.experiments.training.run import Run

Columns = Mapping[str, Callable[[Sequence[Run]], str]]
"""Our columns by header: each turns the runs of a row into the text of a cell."""


@dataclass(frozen=True)
class Row:
    """A row of the paper.

    Args:
        label: the row's name in the paper.
        cell: (names of models, seed) -> the `training.recipe.Cell` that stands for the row.
        paper: the paper's figures by column, None where it has none.
    """

    label: str
    cell: Callable[[Sequence[str], int], Any]
    paper: tuple[float | None, ...]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Args:
        task: name in `TASKS`.
        source: title of the table in the paper.
        columns: headers of the paper's figures.
        models: names of the default models, as many as the rows speak of.
        rows: the rows, in the paper's order.
        notes: what a reader of the table must know.
        ours: (`sweep.Sweep`, folder of ObjectNet) -> (its `report.Result`, our columns); None for
            `columns.compared`.
    """

    task: str
    source: str
    columns: tuple[str, ...]
    models: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    ours: Callable[[Any, Path | None], tuple[Any, Columns]] | None = None
