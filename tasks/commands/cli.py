"""The command line `lincon`: its commands, and its entry point.

A command imports what it needs when it is called, so that help is fast.
"""

import os
import signal
import sys
import warnings
from typing import Annotated

import typer

import lincon
from lincon.errors import LinconWarning
from lincon.tasks.commands.config import TrainingCommand
from lincon.tasks.commands.errors import OneLineErrors, on_sigterm
from lincon.tasks.commands.listing import data, models, schemes
from lincon.tasks.commands.options import with_options
from lincon.tasks.commands.predict import predict
from lincon.tasks.commands.sweeps import compare, convergence, generalization, reproduce, scaling
from lincon.tasks.commands.train import train
from lincon.tasks.commands.trained import evaluate, export, inspect, prune, quantize

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lincon {lincon.__version__}")
        raise typer.Exit


@app.callback()
def everything(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="And nothing else."),
    ] = False,
) -> None:
    """Train neural networks under linear constraints."""


for training in (train, compare, scaling, convergence, generalization, reproduce):
    app.command(cls=TrainingCommand)(with_options(training))
for command in (evaluate, prune, quantize, export, inspect, schemes, models, data):
    app.command()(command)
app.add_typer(predict, name="predict")


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning of lincon's in a line; others with their place."""
    text = " ".join(str(message).split())
    if issubclass(category, LinconWarning):
        return f"lincon: warning: {text}\n"
    return f"{filename}:{lineno}: {category.__name__}: {text}\n"


def main() -> None:
    """Entry point of the command `lincon`."""
    signal.signal(signal.SIGTERM, on_sigterm)
    warnings.formatwarning = _format_warning
    try:
        app()
    except SystemExit as end:
        import torch.distributed as dist

        if dist.is_initialized():
            # While gloo's threads live, an interpreter that ends in order aborts now and then.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        raise


if __name__ == "__main__":
    main()
