"""Tables of the paper (Wang et al., WACV 2023), its figures beside ours.

Every row says which training stands for it: a scheme, a model (the smaller or the larger of two) and a DoF. The paper's
setting is `--data cifar100 --model resnet18,resnet34 --preset cifar`; anything smaller is the same table in shares:
the ring of 11.16M is 52.5 % of ResNet-34's block weights, and so on. The header names the data really used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lincon.tasks.classification import compare, generalization
from lincon.tasks.classification.choice import choose
from lincon.tasks.classification.recipe import Cell
from lincon.tasks.classification.report import Result, mean_and_spread, with_spread
from lincon.tasks.classification.sweep import Sweep
from lincon.tasks.classification.training import Run

SMALLER, LARGER = 0, 1
RING_11M, RING_2M = 11_160_576, 2_359_296
"""The authors' ring (their code's default), and one 512 x 512 x 3 x 3 convolution."""
BLOCKS = {"resnet18": 11_157_504, "resnet34": 21_258_240}


@dataclass(frozen=True)
class Row:
    """A row of the paper.

    ``model``: `SMALLER` or `LARGER`; ``ring``: free numbers, as a count for the paper's own models; ``paper``: its
    figures by column, None where it has none.
    """

    label: str
    model: int
    scheme: str
    ring: int | None
    paper: tuple[float | None, ...]

    def cell(self, models: Sequence[str], seed: int) -> Cell:
        """The training that stands for the row."""
        name = models[self.model]
        papers = ("resnet18", "resnet34")[self.model]
        exact = name.removesuffix("-imagenet") == papers
        dof = None if self.ring is None else self.ring if exact else round(self.ring / BLOCKS[papers], 3)
        return Cell(name, self.scheme, dof, seed)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: its columns and rows, where it is from, and what must be known to read it."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    shifted: bool = False


TABLES: dict[str, PaperTable] = {
    "baselines": PaperTable(
        "Baselines at 11M DoF (CIFAR-100)",
        ("paper: CIFAR-100 %",),
        (
            Row("R18-vanilla", SMALLER, "vanilla", None, (77.5,)),
            Row("R34-RPG-bk (a ring per stage)", LARGER, "rpg-block", RING_11M, (78.5,)),
            Row("R34-RPG (one ring)", LARGER, "rpg", RING_11M, (78.9,)),
            Row("R34-random weight share", LARGER, "random", RING_11M, (74.9,)),
            Row("R34-Deep Compression", LARGER, "deep-compression", RING_11M, (72.2,)),
            Row("R34-Hash", LARGER, "hash", RING_11M, (75.6,)),
            Row("R34-Lego", LARGER, "lego", RING_11M, (78.4,)),
            Row("R34-vanilla", LARGER, "vanilla", None, (79.1,)),
        ),
        (
            "How the paper counted Deep Compression's DoF is not known; here weights that are not zero are counted, "
            "and half of them pruned usually costs less than the paper's row lost.",
        ),
    ),
    "dof-accuracy": PaperTable(
        "Accuracy and DoF",
        ("paper: ImageNet %", "paper: CIFAR-100 %"),
        (
            Row("R18-RPG", SMALLER, "rpg", RING_2M, (67.2, 75.6)),
            Row("R18-vanilla", SMALLER, "vanilla", None, (70.5, 77.6)),
            Row("R34-RPG", LARGER, "rpg", RING_2M, (69.1, 76.5)),
            Row("R34-vanilla", LARGER, "vanilla", None, (73.4, 79.1)),
        ),
        (
            "A summary of the paper prints 45K DoF over the RPG columns; by the abstracts these figures belong to "
            "about 2M (a ring of one convolution of 512 x 512 x 3 x 3), which is what is trained here.",
        ),
    ),
    "generalization": PaperTable(
        "Generalization: train - test gap, and a shifted test set (paper: ImageNet and ObjectNet)",
        ("paper: gap", "paper: ObjectNet %"),
        (
            Row("R18-vanilla", SMALLER, "vanilla", None, (-0.7, 13.4)),
            Row("R18-RPG", SMALLER, "rpg", RING_2M, (-2.7, None)),
            Row("R34-vanilla", LARGER, "vanilla", None, (1.1, 16.0)),
            Row("R34-RPG", LARGER, "rpg", RING_11M, (-2.3, 16.5)),
        ),
        (
            "The paper's gaps compare training images with augmentation against plain validation images, which makes "
            "them smaller, even negative; ours compare plain images with plain images.",
            "Which DoF the paper's RPG rows of the gap have is not stated.",
        ),
        shifted=True,
    ),
}
"""The paper's tables of classification by name."""


def cells(table: str, models: Sequence[str], seeds: range) -> list[Cell]:
    """The trainings that a table takes; ``models``: the smaller and the larger."""
    rows = choose("table", table, TABLES).rows
    return list(dict.fromkeys(row.cell(models, seed) for seed in seeds for row in rows))


def reproduce(table: str, models: Sequence[str], sweep: Sweep, objectnet: Path | None = None) -> Result:
    """Train the cells of a table, and write it with the paper's figures beside ours."""
    paper = choose("table", table, TABLES)
    ours = generalization.generalization(sweep, objectnet) if paper.shifted else compare.compare(sweep)
    runs = [run for cell in sweep.cells if (run := sweep.store.get(cell))]
    columns: dict[str, Callable[[Sequence[Run]], str]] = {"test accuracy %": _accuracy}
    if paper.shifted:
        shifts = dict(zip(map(_key, runs), ours.numbers["shifted"], strict=True))
        columns |= {"gap": _gap, "shifted %": lambda group: _shifted(group, shifts)}
    title = f"{paper.source}: ours on {sweep.title}"
    header = ("row", "ours", "dof", *columns, *paper.columns)
    rows = []
    for row in paper.rows:
        mine = [run for run in runs if _matches(run, row.cell(models, run.seed))]
        figures = ("–" if figure is None else f"{figure:.1f}" for figure in row.paper)
        what = f"{mine[0].model}, {mine[0].scheme}"
        rows.append((row.label, what, f"{mine[0].dof:,}", *(of(mine) for of in columns.values()), *figures))
    numbers: dict[str, Any] = {"table": [dict(zip(header, cells, strict=True)) for cells in rows]}
    result = replace(
        ours, title=title, header=header, rows=rows, numbers={**ours.numbers, **numbers}, notes=paper.notes
    )
    result.write(sweep, runs)
    return result


def _matches(run: Run, cell: Cell) -> bool:
    return (run.model, run.scheme, run.asked) == (cell.model, cell.scheme, cell.dof)


def _key(run: Run) -> tuple[Any, ...]:
    return run.model, run.scheme, run.asked, run.seed


def _accuracy(runs: Sequence[Run]) -> str:
    return with_spread(*mean_and_spread([100 * run.accuracy for run in runs]))


def _gap(runs: Sequence[Run]) -> str:
    return with_spread(*mean_and_spread([100 * (run.train_accuracy - run.accuracy) for run in runs]))


def _shifted(runs: Sequence[Run], shifts: dict[tuple[Any, ...], generalization.Shifted]) -> str:
    """Mean over all shifts and strengths; of ObjectNet protocol A, which the paper's figures look like."""
    means = []
    for run in runs:
        found = shifts[_key(run)]
        values = found.get("ObjectNet A") or [value for values in found.values() for value in values]
        means.append(100 * sum(values) / len(values))
    return with_spread(*mean_and_spread(means))
