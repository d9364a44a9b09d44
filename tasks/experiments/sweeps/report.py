"""Tables of experiments, as Markdown and for the terminal; the table of a comparison, a line per scheme and DoF."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from math import isfinite
from statistics import mean, median, stdev
from typing import Any

from rich.table import Table

from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps.provenance import provenance
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

Rows = Sequence[tuple[str, ...]]

FILES = "table.md", "results.json", "picture.png"
"""What `Result.write` writes."""


def header(measures: Sequence[Measure]) -> tuple[str, ...]:
    """The columns of a `Line`."""
    return (
        "scheme",
        "dof",
        "total parameters",
        *(measure.label for measure in measures),
        "s / epoch",
        "file bytes",
    )


@dataclass(frozen=True)
class Line:
    """A scheme at a DoF, over its seeds.

    `measures` has, by name, mean and sample standard deviation (None for one seed) of what the test set gave after the
    last epoch, in the units of their labels; `epoch_seconds` is the median.
    """

    model: str
    scheme: str
    dof: int
    total: int
    measures: dict[str, tuple[float, float | None]]
    epoch_seconds: float
    file_bytes: int

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of `header`."""
        return (
            self.scheme,
            f"{self.dof:,}",
            f"{self.total:,}",
            *(with_spread(*value) for value in self.measures.values()),
            f"{self.epoch_seconds:.2f}",
            f"{self.file_bytes:,}",
        )


def with_spread(value: float, spread: float | None) -> str:
    """ "97.73 ± 0.50" """
    return f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the spread of one value."""
    return mean(values), stdev(values) if len(values) > 1 else None


def line(runs: Sequence[Run], measures: Sequence[Measure]) -> Line:
    """Sum up the runs of one scheme."""
    return Line(
        model=runs[0].model,
        scheme=runs[0].scheme,
        dof=round(mean(run.dof for run in runs)),
        total=round(mean(run.total for run in runs)),
        measures={
            m.name: mean_and_spread([m.factor * run.test[m.name][-1] for run in runs])
            for m in measures
        },
        epoch_seconds=median(chain.from_iterable(run.epoch_seconds for run in runs)),
        file_bytes=max(run.file_bytes for run in runs),
    )


def alike(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that differ by their seeds alone, together, in the order in which they first appear."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.model, run.scheme, str(run.asked)), []).append(run)
    return list(groups.values())


def lines(runs: Sequence[Run], measures: Sequence[Measure]) -> list[Line]:
    """A line for each model, scheme and DoF."""
    return [line(group, measures) for group in alike(runs)]


def console_table(header: Sequence[str], rows: Rows, title: str) -> Table:
    """A table for a terminal; the first column is text, the others are numbers."""
    shown = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        shown.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown(header: Sequence[str], rows: Rows, title: str) -> str:
    """A table as Markdown, its title a line above."""
    rule = ("---", *["---:"] * (len(header) - 1))
    return (
        "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in (tuple(header), rule, *rows))])
        + "\n"
    )


@dataclass(frozen=True)
class Result:
    """What an experiment came to: a table, plain JSON, and a picture."""

    title: str
    header: Sequence[str]
    rows: Rows
    numbers: dict[str, Any]
    picture: bytes
    notes: Sequence[str] = ()

    def write(self, sweep: Sweep, runs: Sequence[Run]) -> None:
        """Write `results.json`, `picture.png` and `table.md` into the sweep's folder, each whole or not at all."""
        everything = {
            "title": self.title,
            "recipe": sweep.described,
            **self.numbers,
            "runs": [asdict(run) for run in runs],
            **provenance(),
        }
        write_output(
            sweep.out / "results.json", json.dumps(_finite(everything), indent=1, allow_nan=False)
        )
        write_output(sweep.out / "picture.png", self.picture)
        write_output(sweep.out / "table.md", self.markdown())

    def markdown(self) -> str:
        """Title, table and notes."""
        return markdown(self.header, self.rows, self.title) + "".join(
            f"\n{note}\n" for note in self.notes
        )

    def console(self) -> Table:
        """For a terminal."""
        return console_table(self.header, self.rows, self.title)


def notes_of(runs: Sequence[Run]) -> list[str]:
    """What must be known of the data."""
    return list(dict.fromkeys(run.note for run in runs if run.note))


def _finite(value: Any) -> Any:
    """Plain JSON has no NaN, which a training that diverged leaves: null instead."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
