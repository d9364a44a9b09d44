"""What several commands print."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def print_measures(task: str, values: Mapping[str, float]) -> None:
    """Print every measure of a task, a line each."""
    from lincon.tasks.experiments.task import find_task

    for measure in find_task(task).measures:
        typer.echo(f"test {measure.label}: {measure.shown(values)}")


def print_result(result: Any, out: Path) -> None:
    """Print the table of an experiment (a `report.Result`), its notes, and where it was written."""
    from rich.console import Console

    from lincon.tasks.experiments.sweeps.sweep import FILES

    Console().print(result.console())
    for note in result.notes:
        typer.echo(note)
    typer.echo(f"written to {out}: {', '.join(FILES)}")
