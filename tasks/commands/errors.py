"""Refusals of commands: one line on the error stream and an exit code, never a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from lincon.errors import LinconError

UsageError: Any = typer.BadParameter.__mro__[1]
"""A class of click, which newer versions of typer carry inside and do not export."""

_TASKS = (
    "kornia",
    "lightning",
    "matplotlib",
    "PIL",
    "rich",
    "sklearn",
    "tensorboardX",
    "torchmetrics",
    "typer",
)
EXTRAS = {
    **dict.fromkeys(_TASKS, "tasks"),
    **dict.fromkeys(("onnx", "onnxscript", "torchao"), "export"),
    "ray": "parallel",
}
"""The extra that installs a package, by the name under which the package is imported."""


class OneLineErrors(TyperGroup):
    """A group of commands whose refusals are one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        _end(error.format_message(), 2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(package)
        remedy = f": pip install 'lincon-torch[{extra}]'" if extra else ""
        _end(f"{error.name or error} is not installed{remedy}", 2)
    except (LinconError, OSError) as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        _end(
            "interrupted; call an experiment again to go on from its finished runs, "
            "or train with --resume; other commands start over",
            130,
        )


def _end(message: str, code: int) -> None:
    typer.echo(f"lincon: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)
