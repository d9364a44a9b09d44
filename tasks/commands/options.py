"""The options that all training commands share, and what they say of an experiment."""

import inspect
import json
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from lincon.tasks.commands.arguments import split_names
from lincon.tasks.commands.config import read_config
from lincon.tasks.experiments.files import check_folder
from lincon.tasks.interface.defaults import TRIALS

NOT_OF_EXPERIMENTS = "data", "config", "tune_seeds"
"""Options that are no `Settings`: an argument of experiments, and the command line's own."""


@dataclass(frozen=True)
class Options:
    """What every training command takes. None stands for what the preset says, or the task."""

    data: Annotated[
        str | None,
        typer.Option(
            help="Data set of the task, also with options; an embedded one by default. Yours: a "
            ".npz file of x_train, y_train, x_test, y_test (or x, y); folder:size=32 with --root; "
            "or package.module:name, a function whose code runs and which returns arrays, data "
            "sets or a LightningDataModule; a .txt file for language."
        ),
    ] = None
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data set, in its official layout.")
    ] = None
    images: Annotated[int | None, typer.Option(help="Training images used; all by default.")] = None
    preset: Annotated[
        str, typer.Option(help="A recipe of the task by name, such as quick; options change it.")
    ] = "quick"
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None
    batch: Annotated[int | None, typer.Option(help="Images a step.")] = None
    optimiser: Annotated[
        str | None,
        typer.Option("--optimiser", "--optimizer", help="sgd, heavy-ball, adam or rmsprop."),
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="At the top of its schedule.")
    ] = None
    schedule: Annotated[
        str | None, typer.Option(help="cycle, cosine, steps, thirds, tenths or exponential.")
    ] = None
    weight_decay: Annotated[
        float | None, typer.Option(help="On every parameter, the free vector included.")
    ] = None
    held_out: Annotated[
        int | None,
        typer.Option(
            help="Training items that stand in for the test set, and are not trained on: for "
            "choices, which must not see it. With --tune, those that trials are measured on."
        ),
    ] = None
    threads: Annotated[
        int, typer.Option(min=1, help="Of torch, on the CPU; more pay for large images.")
    ] = 1
    log: Annotated[
        str, typer.Option(help="csv, tensorboard, or both with a comma; beside each run.")
    ] = ""
    trainer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLAG=VALUE", help="Also --trainer.FLAG VALUE: of Lightning's Trainer."
        ),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print nothing but errors and warnings, no progress bar."
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Train nothing and write nothing: list the trainings, their DoF, the sizes of "
            "their files, and about how long they take, from one timed step of each.",
        ),
    ] = False
    config: Annotated[
        Path | None,
        typer.Option(
            is_eager=True, callback=read_config, help="TOML file with any of these options."
        ),
    ] = None

    def settings(self) -> dict[str, Any]:
        """What they say of `lincon.experiments.Settings`, by name."""
        flags = [pair.partition("=") for pair in self.trainer or []]
        names = [each.name for each in fields(self) if each.name not in NOT_OF_EXPERIMENTS]
        return {
            **{name: getattr(self, name) for name in names},
            "trainer": {flag: _parse_value(text) for flag, _, text in flags},
            "log": split_names(self.log),
        }


@dataclass(frozen=True)
class SweepOptions(Options):
    """What commands of several trainings take besides."""

    parallel: Annotated[
        int, typer.Option(min=1, help="Trainings at a time, by Ray; the results are the same.")
    ] = 1
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=VALUES",
            help="learning-rate=0.05,0.1 or weight-decay=...: tried for every scheme and DoF alike "
            "on training items that --held-out keeps apart; several options make a grid.",
        ),
    ] = None
    tune_seeds: Annotated[
        int,
        typer.Option(min=1, help="Trials of each setting; what one alone picks is partly chance."),
    ] = TRIALS

    def settings(self) -> dict[str, Any]:
        """What they say of `lincon.experiments.Settings`; with --tune, what is held out is for it."""
        if not self.tune:
            return super().settings() | {"tune": None}
        from lincon.tasks.experiments.sweeps.grid import Grid, parse

        grid = Grid(parse(self.tune), self.held_out or 0, self.tune_seeds)
        return super().settings() | {"tune": grid, "held_out": None}


def with_options(function: Callable[..., None]) -> Callable[..., None]:
    """A command that makes the first argument of ``function`` from options.

    The argument is of the class `Options` or `SweepOptions`. Typer reads the signature and the
    annotations of a command: in both, the fields of that class stand for the argument.
    """
    first, *own = inspect.signature(function).parameters.values()
    kind: type[Options] = get_type_hints(function)[first.name]

    def call(**arguments: Any) -> None:
        import torch

        from lincon.recycling import keep_pages

        options = kind(**{field.name: arguments.pop(field.name) for field in fields(kind)})
        torch.set_num_threads(options.threads)
        keep_pages()
        if "out" in arguments:
            check_folder(arguments["out"] or Path())
        with redirect_stdout(StringIO()) if options.quiet else nullcontext():
            function(options, **arguments)

    shared = inspect.signature(kind).parameters.values()
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared)]
    hints = {
        **get_type_hints(kind, include_extras=True),
        **get_type_hints(function, include_extras=True),
    }
    command: Any = call
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: hints[p.name] for p in parameters}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return call


def _parse_value(text: str) -> Any:
    """The value of a flag: JSON if the text is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
