"""Names for models and data that a caller gives as objects: trainings know both by names."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from lincon import Generator, LinconError
from lincon.tasks.experiments.importing import give, importable_name


def name_of_model(model: Any, task: str, names: ExitStack) -> str:
    """The name of a model: itself, or that of a function, which is known until ``names`` is closed.

    Raises:
        LinconError: a model instead of a function that makes one; a function for a task whose
            models have more than one output.
    """
    if isinstance(model, str):
        return model
    if isinstance(model, nn.Module) or not callable(model):
        raise LinconError(
            f"the model is a {type(model).__name__}: give a name, or a function that makes a new "
            "model for each training, as lambda channels, classes: Net(channels, classes)."
        )
    if task != "classification":
        raise LinconError(f"models of {task} are given by name; see lincon models {task}.")
    return importable_name(model) or names.enter_context(give(model, _own_name(model)))


def name_of_scheme(scheme: Any, names: ExitStack) -> str:
    """The name of a scheme: itself, or that of a generator class.

    Raises:
        LinconError: neither a name nor a generator class.
    """
    if isinstance(scheme, str):
        return scheme
    if not (isinstance(scheme, type) and issubclass(scheme, Generator)):
        raise LinconError(
            f"{scheme!r} is no scheme: give a name, such as 'rpg' or 'ring:tile=1', or a generator "
            "class."
        )
    return importable_name(scheme) or names.enter_context(give(scheme, _own_name(scheme)))


def name_of_data(data: Any, names: ExitStack) -> str:
    """The name of a data set: itself, or that of arrays, sets or a function.

    These are known until ``names`` is closed. None has the empty name, which is the task's own.
    """
    if data is None:
        return ""
    if isinstance(data, str | Path):
        return str(data)
    if callable(data):
        return importable_name(data) or names.enter_context(give(data, _own_name(data)))
    return names.enter_context(give(_Holding(data), _kind(data)))


class _Holding:
    """A function without arguments that returns what it holds."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __call__(self) -> Any:
        return self.data


def _own_name(function: Callable[..., Any]) -> str:
    inner = getattr(function, "func", function)  # of functools.partial
    name = getattr(inner, "__name__", type(inner).__name__)
    return name if name.isidentifier() else "function"


def _kind(data: Any) -> str:
    """What the data are called in tables: arrays, or the class of data sets."""
    first = data
    while isinstance(first, tuple | list | Mapping) and first:
        first = next(iter(first.values() if isinstance(first, Mapping) else first))
    name = type(first).__name__
    return "arrays" if name in ("ndarray", "Tensor", "list", "tuple", "dict") else name
