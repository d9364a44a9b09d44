"""The table of a comparison: a line per scheme, over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mean, median, stdev

from rich.table import Table

from lincon.tasks.classification.training import Run

HEADER = ("scheme", "dof", "total parameters", "accuracy %", "s / epoch", "file bytes")


@dataclass(frozen=True)
class Line:
    """A scheme over its seeds.

    `accuracy` and `spread` are the mean and the sample standard deviation of the last epoch's test accuracy,
    in percent and percentage points (`spread` is None for one seed); `epoch_seconds` is the median.
    """

    scheme: str
    dof: int
    total: int
    accuracy: float
    spread: float | None
    epoch_seconds: float
    file_bytes: int

    def cells(self) -> tuple[str, ...]:
        """The line as text, in the order of `HEADER`."""
        spread = "" if self.spread is None else f" ± {self.spread:.2f}"
        return (
            self.scheme,
            f"{self.dof:,}",
            f"{self.total:,}",
            f"{self.accuracy:.2f}{spread}",
            f"{self.epoch_seconds:.2f}",
            f"{self.file_bytes:,}",
        )


def line(runs: Sequence[Run]) -> Line:
    """Sum up the runs of one scheme."""
    accuracies = [100 * run.accuracy for run in runs]
    return Line(
        scheme=runs[0].scheme,
        dof=runs[0].dof,
        total=runs[0].total,
        accuracy=mean(accuracies),
        spread=stdev(accuracies) if len(runs) > 1 else None,
        epoch_seconds=median(chain.from_iterable(run.epoch_seconds for run in runs)),
        file_bytes=max(run.file_bytes for run in runs),
    )


def lines(runs: Sequence[Run]) -> list[Line]:
    """A line per scheme, in the order in which they first appear."""
    return [line([run for run in runs if run.scheme == scheme]) for scheme in dict.fromkeys(r.scheme for r in runs)]


def console_table(table: Sequence[Line], title: str) -> Table:
    """The table for a terminal."""
    shown = Table(title=title, title_justify="left")
    for name in HEADER:
        shown.add_column(name, justify="left" if name == HEADER[0] else "right")
    for entry in table:
        shown.add_row(*entry.cells())
    return shown


def markdown(table: Sequence[Line], title: str) -> str:
    """The table as Markdown, its title a line above."""
    rule = ("---", *["---:"] * (len(HEADER) - 1))
    rows = [HEADER, rule, *(entry.cells() for entry in table)]
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
