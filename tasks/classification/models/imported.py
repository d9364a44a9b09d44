"""Models from elsewhere: any importable function (or class) that makes one, named "package.module:function"."""

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lincon import LinconError
from lincon.tasks.experiments.schemes.body import Architecture


def imported(module: str, name: str, models: Iterable[str] = ()) -> Architecture:
    """The architecture made of the function ``name`` of ``module``.

    It gets those of `channels`, `classes` and `size` that it has arguments for: by these names or,
    if it uses none of them, in this order, as many as it has positional arguments without a
    default. `width=` is passed on when asked for. Raises LinconError if it cannot be imported;
    ``models`` are the names that could have been meant instead.
    """
    found = _find(module, name, models)
    return partial(_make, f"{module}:{name}", found)


def _find(module: str, name: str, models: Iterable[str]) -> Callable[..., Any]:
    try:
        home = import_module(module)
    except Exception as error:  # whatever the module itself does when it is imported
        raise LinconError(
            f"Cannot import {module!r}: {error}. Is its folder on PYTHONPATH? Models are: "
            f"{', '.join(models)}."
        ) from error
    found = getattr(home, name, None)
    if not callable(found) or isinstance(found, nn.Module):
        what = (
            f"has no {name!r}" if found is None else f"has a {type(found).__name__} called {name!r}"
        )
        own = [
            n
            for n, thing in vars(home).items()
            if callable(thing) and getattr(thing, "__module__", "") == module
        ]
        raise LinconError(
            f"Module {module!r} {what}; a function that makes a model is needed. It has: "
            f"{', '.join(own) or 'none'}."
        )
    return found


def _make(
    path: str,
    function: Callable[..., Any],
    channels: int,
    classes: int,
    size: int,
    *,
    width: float | None = None,
) -> nn.Module:
    own = signature(function)
    args, kwargs = _arguments(
        own.parameters.values(), {"channels": channels, "classes": classes, "size": size}
    )
    if "width" in own.parameters and width is not None:
        kwargs["width"] = width
    elif width not in (None, 1.0):
        raise LinconError(
            f"{path} takes no argument `width`; the scheme small needs it, to make narrower "
            "networks."
        )
    try:
        own.bind(*args, **kwargs)
    except TypeError as error:
        raise LinconError(
            f"{path} takes more than channels, classes and size: {error}; give it a default."
        ) from error
    model = function(*args, **kwargs)
    if not isinstance(model, nn.Module):
        raise LinconError(f"{path} returned a {type(model).__name__}, not a torch.nn.Module.")
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        raise LinconError(
            f"{path} has lazy layers, whose weights cannot be counted: give them their sizes."
        )
    return model


def _arguments(
    parameters: Iterable[Parameter], values: dict[str, int]
) -> tuple[tuple[int, ...], dict[str, float]]:
    """(positional, by name): what a function with these parameters is given of ``values``."""
    parameters = [p for p in parameters if p.name != "width"]
    keywords = {
        p.name
        for p in parameters
        if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }
    if named := {name: value for name, value in values.items() if name in keywords}:
        return (), {**named}
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return tuple(values.values()), {}
    positional = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    needed = sum(p.kind in positional and p.default is Parameter.empty for p in parameters)
    return tuple(values.values())[:needed], {}
