"""Fingerprints of code that no file holds, such as the functions of a notebook's cells."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from inspect import getclosurevars
from types import CodeType, FunctionType
from typing import Any

from lincon.tasks.experiments.data.sets import digest

PLAIN = bool | int | float | str | bytes | tuple | None


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
    """The code of each function that is reached, with its name, its defaults and plain values."""
    waiting, seen = list(functions), set()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, partial):
            waiting += [thing.func, *thing.args, *thing.keywords.values()]
        elif isinstance(thing, staticmethod | classmethod):
            waiting.append(thing.__func__)
        elif isinstance(thing, property):
            waiting.append(thing.fget)
        elif isinstance(thing, type) and _is_typed(thing):
            waiting += [*thing.__bases__, *vars(thing).values()]
        elif isinstance(thing, FunctionType) and _is_typed(thing):
            names = list(_names(thing.__code__))
            values = {n: thing.__globals__[n] for n in names if n in thing.__globals__}
            cells = list(getclosurevars(thing).nonlocals.values())
            waiting += [*values.values(), *cells]
            plain = [(n, v) for n, v in sorted(values.items()) if isinstance(v, PLAIN)]
            plain += [("", v) for v in cells if isinstance(v, PLAIN)]
            yield thing.__qualname__, repr(thing.__defaults__), *_code(thing.__code__), *plain


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
