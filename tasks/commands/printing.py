"""What several commands print."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

WIDE = 1000
"""Columns of a table that is not shown in a terminal."""


def print_measures(task: str, values: Mapping[str, float]) -> None:
    """Print every measure of a task, a line each."""
    from lincon.tasks.experiments.task import find_task

    for measure in find_task(task).measures:
        typer.echo(f"test {measure.label}: {measure.shown(values)}")


def print_result(result: Any, out: Path) -> None:
    """Print the table of an experiment (a `report.Result`), its notes, and where it was written."""
    from lincon.tasks.experiments.files import FILES

    print_table(result.console())
    for note in result.notes:
        typer.echo(note)
    if result.figure is not None:
        typer.echo(f"written to {out}: {', '.join(FILES)}")


def print_table(table: Any) -> None:
    """Print a table as wide as the terminal; no word of it is cut, however narrow that is."""
    from rich.console import Console

    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    lines = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    # A column is at least as wide as its longest word; what is left of the terminal goes to the
    # first columns that are longer.
    borders = 3 * len(lines) + 1
    widths = [max(len(word) for line in each for word in line.split()) for each in lines]
    for column, each, width in zip(table.columns, lines, widths, strict=True):
        spare = max(0, columns - borders - sum(widths))
        column.width = width + min(spare, max(map(len, each)) - width)
        columns -= column.width - width
    Console(width=max(borders + sum(c.width for c in table.columns), len(table.title or ""))).print(
        table
    )


def print_lines(lines: Sequence[tuple[str, str]]) -> None:
    """Print names and what they stand for, a line each."""
    width = max((len(name) for name, _ in lines), default=0)
    for name, about in lines:
        typer.echo(f"{name:<{width}}  {about}".rstrip())
