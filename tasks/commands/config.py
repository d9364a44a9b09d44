"""Options from a TOML file, and flags of Lightning's Trainer on the command line."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from lincon.errors import LinconError
from lincon.tasks.commands.checking import check_there

_PREFIX = "--trainer."


class TrainingCommand(TyperCommand):
    """A command that takes `--config FILE`, and `--trainer.<flag> <value>` for the Trainer.

    Flags of the Trainer are handed on as `--trainer <flag>=<value>`. Those of the file come first,
    so that the command line overrides them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(_flags_of_config(args))
        for word in args:
            if word.startswith(_PREFIX):
                flag, _, value = word.removeprefix(_PREFIX).partition("=")
                words += ["--trainer", f"{flag}={value}"]
            elif _lacks_value(words) and not word.startswith("--"):
                words[-1] += word
            else:
                words.append(word)
        return super().parse_args(ctx, words)


def _lacks_value(words: Sequence[str]) -> bool:
    """Whether the words end with a flag of the Trainer whose value comes next."""
    return words[-2:-1] == ["--trainer"] and words[-1].endswith("=")


def _flags_of_config(args: Sequence[str]) -> Iterator[str]:
    """The flags of the Trainer in the file of `--config`, as words of a command line."""
    files = [after for word, after in pairwise(args) if word == "--config"]
    files += [word.removeprefix("--config=") for word in args if word.startswith("--config=")]
    if not files or not Path(files[-1]).is_file():
        return
    _, flags = _read_toml(Path(files[-1]))
    for flag, value in flags.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield from ("--trainer", f"{flag}={text}")


def read_config(ctx: typer.Context, file: Path | None) -> Path | None:
    """Take defaults of the command's options from a TOML file: the callback of `--config`.

    Raises:
        LinconError: a file that is no TOML, an option that the command does not have, or a value
            of the wrong kind.
    """
    if file is None:
        return None
    settings, _ = _read_toml(file)
    by_spelling = _by_spelling(ctx.command.params)
    values: dict[str, Any] = {}
    for key, value in settings.items():
        option = by_spelling.get(key) or by_spelling.get(key.replace("-", "_"))
        if option is None:
            known = ", ".join(dict.fromkeys(str(each.name) for each in by_spelling.values()))
            raise LinconError(f"{file}: there is no option {key!r}; there are: {known}.")
        if option.name in values:
            raise LinconError(f"{file} gives {key} twice.")
        values[str(option.name)] = _checked(file, key, value, getattr(option, "is_flag", False))
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return file


def _by_spelling(parameters: Sequence[Any]) -> dict[str, Any]:
    """The options that a file may give, by each of their spellings, as optimiser and optimizer."""
    options = [each for each in parameters if each.name not in ("config", "trainer")]
    spellings = {word.lstrip("-"): each for each in options for word in each.opts}
    return spellings | {str(each.name): each for each in options}


def _checked(file: Path, key: str, value: Any, is_flag: bool) -> Any:
    """A value as an option takes it: lists become text with commas."""
    if isinstance(value, dict) or (isinstance(value, bool) and not is_flag):
        raise LinconError(f"{file}: {key} is {value!r}; give a number or text.")
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _read_toml(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options in a file, and its table of flags of the Trainer."""
    check_there(file, "--config a TOML file of options")
    try:
        settings = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LinconError(f"{file} is not a TOML file: {error}.") from None
    flags = settings.pop("trainer", {})
    if not isinstance(flags, dict):
        raise LinconError(
            f"{file}: trainer is a table of flags: "
            "[trainer], then lines as precision = 'bf16-mixed'."
        )
    return settings, flags
