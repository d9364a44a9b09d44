"""Fingerprints of code that no file holds, such as the functions of a notebook's cells."""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import getclosurevars
from types import CodeType, FunctionType
from typing import Any

from lincon.tasks.experiments.data.sets import digest

PLAIN = bool | int | float | str | bytes | tuple | None  # type: ignore[type-arg]


def code_typed(*functions: Callable[..., Any]) -> str | None:
    """Of the functions that no file holds, and of the functions, classes and plain values they use.

    None if files hold all of them. What a function does by way of other objects is not seen.

    >>> first, again, other = (eval(f"lambda n: n + {k}", {"__name__": "typed"}) for k in (1, 1, 2))
    >>> code_typed(first) == code_typed(again) != code_typed(other)
    True
    """
    parts = sorted({digest(*parts) for parts in _used(functions)})
    return digest(*parts) if parts else None


def _used(functions: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """What tells each function that is reached from others, see `_described`."""
    waiting, seen = list(functions), set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, FunctionType):
            if _is_typed(thing):
                values = _values(thing)
                waiting += values.values()
                yield _described(thing, values)
        else:
            waiting += _parts(thing)


def _parts(thing: Any) -> list[Any]:
    """The functions and classes of which something is made."""
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, staticmethod | classmethod):
        return [thing.__func__]
    if isinstance(thing, property):
        return [thing.fget]
    if isinstance(thing, type) and _is_typed(thing):
        return [*thing.__bases__, *vars(thing).values()]
    return []


def _values(function: FunctionType) -> dict[str, Any]:
    """What the names of a function stand for that are not its own."""
    known = function.__globals__
    found = {name: known[name] for name in _names(function.__code__) if name in known}
    return found | dict(getclosurevars(function).nonlocals)


def _described(function: FunctionType, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The name, code and defaults of a function, and the plain values among those it uses."""
    plain = sorted((name, repr(each)) for name, each in values.items() if isinstance(each, PLAIN))
    return function.__qualname__, repr(function.__defaults__), *_code(function.__code__), *plain


def _is_typed(thing: Any) -> bool:
    """Whether no file holds the module of a function or class."""
    name = thing.__module__
    module = sys.modules.get(name)
    return name not in sys.builtin_module_names and getattr(module, "__file__", None) is None


def _code(code: CodeType) -> Iterator[Any]:
    """What tells a code object from others: operations, names and constants, also of those inside."""
    yield code.co_code.hex()
    yield code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            # The order of a set is another in another process.
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
