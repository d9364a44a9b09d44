"""Tables of experiments, as Markdown and for the terminal.

The table of a comparison has a line for each model, scheme and DoF.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from statistics import mean, median, stdev
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps.figures import png, svg
from lincon.tasks.experiments.sweeps.provenance import provenance
from lincon.tasks.experiments.sweeps.statistics import Difference
from lincon.tasks.experiments.sweeps.sweep import FILES, Sweep
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

Rows = Sequence[tuple[str, ...]]


def header(measures: Sequence[Measure], reference: str = "") -> tuple[str, ...]:
    """The headers of the columns of a `Line`; with a reference, there are differences to it."""
    labels = []
    for measure in measures:
        compared = reference and measure.decides
        labels += [measure.label, f"minus {reference}'s"] if compared else [measure.label]
    return ("scheme", "dof", "total parameters", *labels, "s / epoch", "file bytes")


@dataclass(frozen=True)
class Line:
    """A scheme at a DoF, over its seeds.

    Args:
        model: name of the model.
        scheme: name of the scheme.
        dof: free numbers in the body, mean over the seeds.
        total: all parameters, mean over the seeds.
        measures: by name, mean and sample standard deviation (None for one seed) on the test set
            after the last epoch, in the units of their labels.
        epoch_seconds: median over all epochs.
        file_bytes: size of the largest file.
        differences: to the reference, by measure, over pairs of one seed.
    """

    model: str
    scheme: str
    dof: int
    total: int
    measures: dict[str, tuple[float, float | None]]
    epoch_seconds: float
    file_bytes: int
    differences: Mapping[str, Difference | None] = field(default_factory=dict)

    def cells(self, measures: Sequence[Measure], reference: str = "") -> tuple[str, ...]:
        """The line as text, in the order of `header`."""
        values = []
        for measure in measures:
            values.append(with_spread(*self.measures[measure.name], measure.digits))
            if reference and measure.decides:
                found = self.differences.get(measure.name)
                values.append("–" if found is None else found.shown(measure.digits))
        return (
            self.scheme,
            f"{self.dof:,}",
            f"{self.total:,}",
            *values,
            f"{self.epoch_seconds:.2f}",
            f"{self.file_bytes:,}",
        )


def with_spread(value: float, spread: float | None, digits: int = 2) -> str:
    """A value and its standard deviation, if there is one, as text.

    >>> with_spread(97.73, 0.5), with_spread(97.73, None)
    ('97.73 ± 0.50', '97.73')
    """
    spread_text = "" if spread is None else f" ± {spread:.{digits}f}"
    return f"{value:.{digits}f}{spread_text}"


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the deviation of one value.

    >>> mean_and_spread([1.0, 3.0]), mean_and_spread([2.0])
    ((2.0, 1.4142135623730951), (2.0, None))
    """
    return mean(values), stdev(values) if len(values) > 1 else None


def line(runs: Sequence[Run], measures: Sequence[Measure]) -> Line:
    """Sum up runs that differ in their seeds only."""
    summaries = {}
    for measure in measures:
        summaries[measure.name] = mean_and_spread([measure.last(run.test) for run in runs])
    return Line(
        model=runs[0].model,
        scheme=runs[0].scheme,
        dof=round(mean(run.dof for run in runs)),
        total=round(mean(run.total for run in runs)),
        measures=summaries,
        epoch_seconds=median(seconds for run in runs for seconds in run.epoch_seconds),
        file_bytes=max(run.file_bytes for run in runs),
    )


def group_seeds(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs that differ in their seeds only, in the order of each group's first run."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        # As text, since a dof of 1 equals one of 1.0, which is another.
        key = run.model, run.scheme, str(run.asked)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def lines(runs: Sequence[Run], measures: Sequence[Measure]) -> list[Line]:
    """A line for each model, scheme and DoF."""
    return [line(group, measures) for group in group_seeds(runs)]


def console_table(header: Sequence[str], rows: Rows, title: str) -> Table:
    """A table for a terminal; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def markdown(header: Sequence[str], rows: Rows, title: str) -> str:
    """A table as Markdown, under its title.

    >>> print(markdown(("scheme", "dof"), [("rpg", "100")], "A title"))
    A title
    <BLANKLINE>
    | scheme | dof |
    | --- | ---: |
    | rpg | 100 |
    <BLANKLINE>
    """
    rule = ("---", *["---:"] * (len(header) - 1))
    table = [f"| {' | '.join(row)} |" for row in (tuple(header), rule, *rows)]
    return "\n".join([title, "", *table]) + "\n"


@dataclass(frozen=True)
class Result:
    """The result of an experiment.

    Args:
        title: says what was trained.
        header: headers of the table.
        rows: rows of the table.
        numbers: plain JSON.
        figure: is written as PNG and SVG.
        notes: what a reader of the table must know.
    """

    title: str
    header: Sequence[str]
    rows: Rows
    numbers: dict[str, Any]
    figure: Figure
    notes: Sequence[str] = ()

    def write(self, sweep: Sweep, runs: Sequence[Run]) -> None:
        """Write `FILES` into the folder of the sweep, each whole or not at all."""
        everything = {
            "title": self.title,
            "recipe": sweep.described,
            **self.numbers,
            "runs": [asdict(run) for run in runs],
            **provenance(),
        }
        numbers = json.dumps(_without_nan(everything), allow_nan=False)
        contents: tuple[str | bytes, ...] = (
            self.markdown(),
            numbers,
            png(self.figure),
            svg(self.figure),
        )
        for name, content in zip(FILES, contents, strict=True):
            write_output(sweep.out / name, content, sweep.mark)

    def markdown(self) -> str:
        """Title, table and notes."""
        notes = "".join(f"\n{note}\n" for note in self.notes)
        return markdown(self.header, self.rows, self.title) + notes

    def console(self) -> Table:
        """The table for a terminal."""
        return console_table(self.header, self.rows, self.title)


def with_column(result: Result, name: str, texts: Sequence[str]) -> Result:
    """The result with another column, the last of its table."""
    rows = [(*row, text) for row, text in zip(result.rows, texts, strict=True)]
    return replace(result, header=(*result.header, name), rows=rows)


def notes_of(runs: Sequence[Run]) -> list[str]:
    """What a reader must know of the data, each note once."""
    return list(dict.fromkeys(run.note for run in runs if run.note))


def _without_nan(value: Any) -> Any:
    """The value with None for NaN and infinity, which diverged trainings leave and JSON has not."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
