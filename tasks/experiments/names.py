"""Things picked by name from a registry, with options in the name: "vit-tiny:patch=2,depth=6"."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, signature
from math import inf
from typing import Any, TypeVar

from lincon import LinconError

T = TypeVar("T")

TASKS = {
    name: f"lincon.tasks.{name}.task" for name in ("classification", "pose", "indoor", "language")
}
"""The module of each task, by the task's name; each has its `TASK`."""


def choose(kind: str, name: str, registry: Mapping[str, T]) -> T:
    """The entry called ``name``.

    Raises:
        LinconError: an unknown name; the message says of what ``kind``, and lists the known ones.

    >>> choose("colour", "red", {"red": 0xFF0000, "blue": 0x0000FF})
    16711680
    """
    if name not in registry:
        known = f"there are: {', '.join(registry)}" if registry else "there are none"
        raise LinconError(f"Unknown {kind} {name!r}; {known}.")
    return registry[name]


def named(kind: str, name: str, registry: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The entry called ``name``, with the options after its colon bound.

    Raises:
        LinconError: an unknown name or option; the message says of what ``kind``.

    >>> def grid(*, columns=3):
    ...     return columns
    >>> named("picture", "grid:columns=5", {"grid": grid})()
    5
    """
    entry, colon, text = name.partition(":")
    make = choose(kind, entry, registry)
    return partial(make, **options(entry, make, text)) if colon else make


def options(name: str, make: Callable[..., Any], text: str) -> dict[str, float]:
    """The arguments that a text such as "patch=2,depth=6" stands for.

    Args:
        name: of what has the options, for messages.
        make: its keyword arguments that are numbers are the options.
        text: options and their values.

    Raises:
        LinconError: an unknown option; a value that is not of the option's kind; an integer that
            is not positive, or a number below 0.
    """
    return parsed(name, numbers_of(make), text)


def numbers_of(make: Callable[..., Any]) -> dict[str, float | None]:
    """The keyword-only arguments that are numbers, with their defaults.

    >>> def grid(rows=2, *, columns=3, colour="red"):
    ...     return columns
    >>> numbers_of(grid)
    {'columns': 3}
    """
    return {
        each.name: each.default
        for each in signature(make).parameters.values()
        if each.kind is Parameter.KEYWORD_ONLY and isinstance(each.default, int | float | None)
    }


def parsed(name: str, defaults: Mapping[str, float | None], text: str) -> dict[str, float]:
    """The options of ``name`` in a text such as "patch=2,depth=6", of those that have ``defaults``.

    Raises:
        LinconError: as `options`.
    """
    if not defaults:
        raise LinconError(
            f"{name} has no options: those are arguments whose default is a number, of a class of "
            "data the keyword-only ones."
        )
    values = {}
    for item in text.replace(" ", "").split(","):
        key, _, value = item.partition("=")
        default = choose(f"option of {name}", key, defaults)
        values[key] = _parse_number(f"Option {key} of {name}", value, default)
    return values


def _parse_number(what: str, text: str, default: float | None) -> float:
    """The value of an option whose default is ``default``: an integer, unless that is a float."""
    is_float = isinstance(default, float)
    least, noun = (0, "a number from 0") if is_float else (1, "a positive integer")
    try:
        value = float(text) if is_float else int(text)
    except ValueError:
        value = -1
    if not least <= value < inf:
        raise LinconError(f"{what} is {text!r}; it must be {noun}, such as {default or 2}.")
    return value


def check_positive(**numbers: float) -> None:
    """Raise LinconError, by name, for a number that is not positive."""
    for name, number in numbers.items():
        if not number > 0:
            raise LinconError(f"{name} is {number}; it must be positive.")
