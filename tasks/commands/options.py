"""The options of commands that train: from the command line, from a file, and what they make."""

import json
import tomllib
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lincon.errors import LinconError


class Training(TyperCommand):
    """A command that takes `--trainer.<flag> <value>` for every flag of Lightning's Trainer, and `--config FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = [word for pair in _trainer_of(args) for word in ("--trainer", pair)]
        for word in args:
            if word.startswith("--trainer."):
                flag, equals, value = word.removeprefix("--trainer.").partition("=")
                rest += ["--trainer", f"{flag}={value}" if equals else f"{flag}="]
            elif (
                rest[-2:-1] == ["--trainer"]
                and rest[-1].endswith("=")
                and not word.startswith("--")
            ):
                rest[-1] += word
            else:
                rest.append(word)
        return super().parse_args(ctx, rest)


def _configured(ctx: typer.Context, file: Path | None) -> Path | None:
    """Take defaults from a TOML file whose keys are the command's options."""
    if file is None:
        return None
    given, _ = _toml(file)
    known = {str(p.name): p for p in ctx.command.params if p.name not in ("config", "trainer")}
    values: dict[str, Any] = {}
    for option, value in given.items():
        name = option.replace("-", "_")
        if name not in known:
            raise LinconError(
                f"{file}: there is no option {option!r}; there are: {', '.join(known)}."
            )
        if name in values:
            raise LinconError(f"{file} gives {option} twice.")
        if isinstance(value, dict) or (
            isinstance(value, bool) and not getattr(known[name], "is_flag", False)
        ):
            raise LinconError(f"{file}: {option} is {value!r}; give a number or text.")
        values[name] = ",".join(map(str, value)) if isinstance(value, list) else value
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return file


def _toml(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file's options, and its table of flags of the Trainer."""
    try:
        given = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LinconError(f"{file} is not a TOML file: {error}.") from None
    flags = given.pop("trainer", {})
    if not isinstance(flags, dict):
        raise LinconError(
            f"{file}: trainer is a table of flags: [trainer], then lines as precision = 'bf16-mixed'."
        )
    return given, flags


def _trainer_of(args: list[str]) -> list[str]:
    """Flags of the Trainer in the file of `--config`, as `flag=value`: they stand before those of the command line."""
    files = [after for word, after in pairwise(args) if word == "--config"]
    files += [word.removeprefix("--config=") for word in args if word.startswith("--config=")]
    if not files or not Path(files[-1]).is_file():
        return []
    _, flags = _toml(Path(files[-1]))
    return [
        f"{flag}={value if isinstance(value, str) else json.dumps(value)}"
        for flag, value in flags.items()
    ]


@dataclass(frozen=True)
class Options:
    """What every training command takes. None: as the preset says, or the task."""

    data: Annotated[
        str | None,
        typer.Option(help="Data set of the task, also with options; an embedded one by default."),
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
    optimiser: Annotated[str | None, typer.Option(help="sgd, heavy-ball, adam or rmsprop.")] = None
    learning_rate: Annotated[float | None, typer.Option(help="At the top of its schedule.")] = None
    schedule: Annotated[
        str | None, typer.Option(help="cycle, cosine, steps, thirds, tenths or exponential.")
    ] = None
    weight_decay: Annotated[
        float | None, typer.Option(help="On every parameter, the free vector included.")
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
    config: Annotated[
        Path | None,
        typer.Option(
            is_eager=True, callback=_configured, help="TOML file with any of these options."
        ),
    ] = None

    def recipe(self, task: str) -> Any:
        """The preset, changed by what was given."""
        from lincon.tasks.experiments.names import choose
        from lincon.tasks.experiments.task import find_task
        from lincon.tasks.experiments.training.recipe import Recipe

        names = [field.name for field in fields(Recipe) if field.name != "task"]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return Recipe(task, **{**choose("preset", self.preset, find_task(task).presets), **given})

    def setup(self) -> Any:
        """Where and with which tools the trainings run."""
        from lincon.tasks.experiments.training.recipe import Setup

        return Setup(self.root, self.trainer_options(), self.logs())

    def trainer_options(self) -> dict[str, Any]:
        """Values are JSON where they can be, else text."""
        from lincon.tasks.experiments.training.trainer import trainer_options

        pairs = [pair.partition("=") for pair in self.trainer or []]
        return trainer_options({flag: _value(text) for flag, _, text in pairs})

    def logs(self) -> list[str]:
        """Names of the logs."""
        from lincon.tasks.experiments.names import choose
        from lincon.tasks.experiments.training.trainer import LOGS

        names = split_names(self.log)
        for name in names:
            choose("log", name, LOGS)
        return names


@dataclass(frozen=True)
class Sweeping(Options):
    """What commands of several trainings take besides."""

    parallel: Annotated[
        int, typer.Option(min=1, help="Trainings at a time, by Ray; the results are the same.")
    ] = 1

    def sweep(self, cells: Any, out: Path) -> Any:
        """The experiment that trains ``cells``."""
        from lincon.tasks.experiments.sweeps.sweep import Sweep

        return Sweep(self.recipe(cells[0].task), cells, out, self.setup(), self.parallel)


def split_names(text: str) -> list[str]:
    """The names between commas, each once. A model's own options (a=1,b=2) stay with it."""
    parts: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if parts and "=" in part and ":" not in part:
            parts[-1] += f",{part}"
        elif part:
            parts.append(part)
    return list(dict.fromkeys(parts))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
