"""The command line `lincon`: its commands, and its entry point.

A command imports what it needs when it is called, so that help is fast.
"""

try:
    import typer
except ImportError:
    raise SystemExit(
        "lincon: the command line is not installed: pip install 'lincon-torch[tasks]'"
    ) from None

import os
import sys

import torch.distributed as dist

from lincon.tasks.commands.config import TrainingCommand
from lincon.tasks.commands.errors import OneLineErrors
from lincon.tasks.commands.options import with_options
from lincon.tasks.commands.predict import predict
from lincon.tasks.commands.sweeps import compare, convergence, generalization, reproduce, scaling
from lincon.tasks.commands.train import train
from lincon.tasks.commands.trained import evaluate, export, inspect, prune, quantize

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    help="Train neural networks under linear constraints.",
)
for training in (train, compare, scaling, convergence, generalization, reproduce):
    app.command(cls=TrainingCommand)(with_options(training))
for command in (evaluate, prune, quantize, export, inspect):
    app.command()(command)
app.add_typer(predict, name="predict")


def main() -> None:
    """Entry point of the command `lincon`."""
    try:
        app()
    except SystemExit as end:
        if dist.is_initialized():
            # While gloo's threads live, an interpreter that ends in order aborts now and then.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        raise


if __name__ == "__main__":
    main()
