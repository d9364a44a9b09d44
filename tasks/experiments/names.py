"""Things picked by name from a registry, and the options in a name, as in "vit-tiny:patch=2,depth=6"."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, signature
from math import inf
from typing import Any, TypeVar

from lincon import LinconError

T = TypeVar("T")


def choose(kind: str, name: str, registry: Mapping[str, T]) -> T:
    """The entry called ``name``; LinconError says what ``kind`` of thing is unknown and lists the known."""
    if name not in registry:
        raise LinconError(f"Unknown {kind} {name!r}; there are: {', '.join(registry)}.")
    return registry[name]


def named(kind: str, name: str, registry: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The entry called ``name``, the options after its colon bound: "vit-tiny" or "vit-tiny:patch=2,depth=6".

    Raises LinconError for an unknown name or option; ``kind`` says of what.
    """
    entry, colon, rest = name.partition(":")
    found = choose(kind, entry, registry)
    return partial(found, **options(entry, found, rest)) if colon else found


def options(name: str, make: Callable[..., Any], text: str) -> dict[str, float]:
    """The arguments that "patch=2,depth=6" stands for: of the keywords of ``make``, those that are numbers.

    Raises LinconError for an unknown option, and for a value that is not positive or not of the option's kind.
    """
    known = {p.name: p.default for p in signature(make).parameters.values() if _is_option(p)}
    pairs = [item.split("=", 1) for item in text.replace(" ", "").split(",")]
    return {
        key: _number(key, "".join(value), choose(f"option of {name}", key, known))
        for key, *value in pairs
    }


def _is_option(parameter: Parameter) -> bool:
    number = parameter.default is None or isinstance(parameter.default, int | float)
    return parameter.kind is Parameter.KEYWORD_ONLY and number


def _number(name: str, text: str, default: float | None) -> float:
    kind = float if isinstance(default, float) else int
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < inf:
        noun = "number" if kind is float else "integer"
        raise LinconError(
            f"Option {name} is {text!r}; it must be a positive {noun}, as in {name}=2."
        )
    return value


def check_positive(**numbers: float) -> None:
    """Raise LinconError, by name, for a number that is not positive."""
    for name, number in numbers.items():
        if not number > 0:
            raise LinconError(f"{name} is {number}; it must be positive.")
