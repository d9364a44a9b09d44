"""Functions of the user's own, named "package.module:function"."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn

from lincon import LinconError
from lincon.errors import one_line

GIVEN = "given"
"""Stands for the module in the names of functions that no module has under a name."""

_given: dict[str, Callable[..., Any]] = {}


@contextmanager
def give(function: Callable[..., Any], name: str) -> Iterator[str]:
    """A name under which `find_function` finds a function of this process, as long as this lasts.

    >>> with give(len, "length") as name:
    ...     name, find_function("number", *name.split(":"), ())
    ('given:length', <built-in function len>)
    """
    free = (f"{name}{number}" for number in count(2))
    own = name if name not in _given else next(each for each in free if each not in _given)
    _given[own] = function
    try:
        yield f"{GIVEN}:{own}"
    finally:
        del _given[own]


@dataclass(frozen=True)
class WithGiven:
    """A function for another process, which takes along what this one was given."""

    function: Callable[[Any], Any]
    given: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: dict(_given))

    def __call__(self, argument: Any) -> Any:
        _given.update(self.given)
        return self.function(argument)


def importable_name(function: Callable[..., Any]) -> str | None:
    """The "package.module:function" that any process finds; None for a function of a notebook.

    >>> import random
    >>> importable_name(random.Random), importable_name(lambda: 0)
    ('random:Random', None)
    """
    module = getattr(function, "__module__", None) or "__main__"
    name = getattr(function, "__qualname__", "")
    home = sys.modules.get(module)
    if module == "__main__" or getattr(home, name, None) is not function:
        return None
    return f"{module}:{name}"


def find_function(kind: str, module: str, name: str, known: Iterable[str]) -> Callable[..., Any]:
    """The function or class called ``name`` in ``module``, which may lie in the current folder.

    Args:
        kind: of what the function makes, for messages.
        module: is imported.
        name: of the function.
        known: names that the message offers instead.

    Raises:
        LinconError: the module cannot be imported, or has no such function.
    """
    if module == GIVEN:
        if name in _given:
            return _given[name]
        raise LinconError(
            f"{module}:{name} is a {kind} that a program gave, as an object that no module has: "
            "give it again from Python, or load the trained model by lincon.load."
        )
    home = _imported(kind, module, known)
    function: Any = getattr(home, name, None)
    if callable(function) and not isinstance(function, nn.Module):
        return cast(Callable[..., Any], function)
    found = type(function).__name__
    problem = f"has no {name!r}" if function is None else f"has a {found} called {name!r}"
    own = [
        key
        for key, value in vars(home).items()
        if callable(value) and getattr(value, "__module__", "") == module
    ]
    raise LinconError(
        f"Module {module!r} {problem}; a function or class that makes a {kind} is needed. It has: "
        f"{', '.join(own) or 'none'}."
    )


def _imported(kind: str, module: str, known: Iterable[str]) -> ModuleType:
    """The module, which may lie in the current folder; the arguments are those of `find_function`."""
    if module.endswith(".py"):
        right = module.removesuffix(".py").strip("./").replace("/", ".")
        raise LinconError(f"{module} is a file: give the module in it, {right}:name.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end: no file there is taken for a library
    try:
        return import_module(module)
    except Exception as error:  # whatever the module itself does when it is imported
        raise LinconError(
            f"Cannot import {module!r}: {_why(error)}. Its folder must be the current one or "
            f"on PYTHONPATH. There are also these of lincon, each a {kind}: {', '.join(known)}."
        ) from error


def _why(error: Exception) -> str:
    """What is wrong with a module, and where in it; a module that is not there has no such place."""
    frames = traceback.extract_tb(error.__traceback__)
    is_in_code = any(not _is_of_library(frame.filename) for frame in frames)
    return last_line(error) if is_in_code else one_line(error)


def last_line(error: BaseException) -> str:
    """An exception in a line, with the last line of its traceback that is not of a library.

    Of an exception that libraries alone have raised, it is the last line of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_of_library(frame.filename)]
    said = f"{type(error).__name__}: {one_line(error)}"
    if not (own or frames):
        return said
    frame = (own or frames)[-1]
    return f"{said} ({Path(frame.filename).name}, line {frame.lineno}: {frame.line})"


def _is_of_library(file: str) -> bool:
    """Whether a file is of lincon, Python or an installed package."""
    parts = Path(file).parts
    here = Path(__file__).resolve().parents[2]
    return (
        file.startswith("<")
        or "site-packages" in parts
        or Path(file).is_relative_to(Path(os.__file__).parent)
        or Path(file).resolve().is_relative_to(here)
    )
