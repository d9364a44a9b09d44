"""Refusals of commands: one line on the error stream and an exit code, never a traceback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from lincon.errors import LinconError
from lincon.tasks.experiments.extras import remedy_of
from lincon.tasks.experiments.importing import last_line

UsageError: Any = typer.BadParameter.__mro__[1]
"""A class of click, which newer versions of typer carry inside and do not export."""

WHOLE_TRACEBACK = "LINCON_TRACEBACK"
"""With this variable set and not empty, an error that no refusal foresees shows all of its traceback."""

_GO_ON = (
    "call an experiment again to go on from its finished runs, or train with --resume; "
    "other commands start over"
)


class Terminated(BaseException):
    """The process was asked to end by SIGTERM."""


def on_sigterm(number: int, frame: Any) -> None:
    """A handler that ends the process in order: no file is left half written."""
    raise Terminated


class OneLineErrors(TyperGroup):
    """A group of commands whose refusals are one line and exit code 2, and other errors 1."""

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
        _end(remedy_of(error), 2)
    except LinconError as error:
        _end(str(error), 2)
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)
    except KeyboardInterrupt:
        _end(f"interrupted; {_GO_ON}", 130)
    except Terminated:
        _end(f"terminated; {_GO_ON}", 143)
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if os.environ.get(WHOLE_TRACEBACK):
            raise
        _end(f"{last_line(error)}; {WHOLE_TRACEBACK}=1 shows where it comes from", 1)


def _end(message: str, code: int) -> None:
    typer.echo(f"lincon: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)
