"""Functions of the user's own, named "package.module:function"."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from torch import nn

from lincon import LinconError
from lincon.errors import one_line


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
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end: no file there is taken for a library
    try:
        home = import_module(module)
    except Exception as error:  # whatever the module itself does when it is imported
        raise LinconError(
            f"Cannot import {module!r}: {last_line(error)}. Its folder must be the current one or "
            f"on PYTHONPATH. There are also these of lincon, each a {kind}: {', '.join(known)}."
        ) from error
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
        f"Module {module!r} {problem}; a function that makes a {kind} is needed. It has: "
        f"{', '.join(own) or 'none'}."
    )


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
