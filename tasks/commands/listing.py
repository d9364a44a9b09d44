"""Commands that list what a task has, a line each."""

from functools import partial
from inspect import getdoc
from typing import Any

import typer

from lincon.tasks.commands.arguments import CLASSIFICATION, FUNCTION, Task
from lincon.tasks.commands.checking import part_of
from lincon.tasks.commands.printing import print_lines
from lincon.tasks.experiments.names import numbers_of


def schemes(task: Task = CLASSIFICATION) -> None:
    """List the schemes of a task, and the generators that are schemes as well."""
    from lincon.generators import get
    from lincon.tasks.experiments.schemes.named import defaults_of, generators_alone, needs_tables

    known = part_of(task, "schemes").SCHEMES
    alone = [name for name in generators_alone(known) if not needs_tables(name)]
    print_lines(
        [
            *((name, scheme.described()) for name, scheme in known.items()),
            *((name, _first_line(get(name)) + _in_brackets(defaults_of(name))) for name in alone),
        ]
    )
    typer.echo(
        "Generators take options: ring:tile=1,order=deck; also scope=tensor, scale=none and "
        "offset=seed."
    )


def models(task: Task = CLASSIFICATION) -> None:
    """List the models of a task."""
    known = part_of(task, "models").MODELS
    print_lines([(name, _described(make)) for name, make in known.items()])
    if task == CLASSIFICATION:
        typer.echo(f"Also {FUNCTION}")


def data(task: Task = CLASSIFICATION) -> None:
    """List the data sets of a task."""
    from lincon.tasks.experiments.task import find_task

    found = find_task(task)
    print_lines([(name, _first_line(kind) + _options(kind)) for name, kind in found.data.items()])
    typer.echo(f"Also {found.own}: see --data in lincon train --help.")


def _first_line(thing: Any) -> str:
    return (getdoc(thing) or "").partition("\n")[0]


def _described(make: Any) -> str:
    """The class of a model, and the arguments that are bound to it."""
    if not isinstance(make, partial):
        return f"{_name(make)}{_options(make)}"
    inner = make
    while isinstance(inner.func, partial):
        inner = inner.func
    bound = ", ".join(f"{key}={value}" for key, value in make.keywords.items())
    return f"{_name(inner.func)} with {bound}{_options(make)}"


def _name(make: Any) -> str:
    return str(getattr(make, "__name__", make)).strip("_")


def _options(make: Any) -> str:
    """The options that may follow a colon, with their defaults."""
    numbers = numbers_of(make).items()
    return _in_brackets({name: default for name, default in numbers if name != "width"})


def _in_brackets(defaults: dict[str, Any]) -> str:
    options = [f"{name}={default}" for name, default in defaults.items()]
    return f" (options: {', '.join(options)})" if options else ""
