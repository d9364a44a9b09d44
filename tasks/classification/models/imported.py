"""Models from elsewhere: any importable function or class, named "package.module:function"."""

from collections.abc import Callable, Iterable
from functools import partial
from inspect import Parameter, signature
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from lincon import LinconError
from lincon.tasks.experiments.importing import find_function
from lincon.tasks.experiments.names import parsed
from lincon.tasks.experiments.schemes.body import Architecture

OF_DATA = "channels", "classes", "size"
"""What a function is given of the data."""


def imported(module: str, name: str, models: Iterable[str] = ()) -> Architecture:
    """The architecture that the function ``name`` of ``module`` makes.

    The function gets those of `channels`, `classes` and `size` for which it has arguments of that
    name. If it has none of them, it gets them in this order, as many as it has positional arguments
    without a default. `width=` is passed on if given. Its other arguments whose default is a number
    are options: "module:function:depth=3".

    Raises:
        LinconError: the function cannot be imported (``models`` are the names that the message
            offers instead), or an option is unknown or not a number.
    """
    own, colon, text = name.partition(":")
    function = find_function("model", module, own, models)
    if colon:
        function = partial(function, **parsed(f"{module}:{own}", _options(function), text))
    return partial(_make, f"{module}:{name}", function)


def _options(function: Callable[..., Any]) -> dict[str, float]:
    """What a function takes beyond the data, with its defaults: numbers alone."""
    return {
        each.name: each.default
        for each in signature(function).parameters.values()
        if isinstance(each.default, int | float) and each.name not in OF_DATA
    }


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
    values = dict(zip(OF_DATA, (channels, classes, size), strict=True))
    args, kwargs = _arguments(own.parameters.values(), values)
    if "width" in own.parameters and width is not None:
        _check_factor(path, own.parameters["width"].default)
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


def _check_factor(path: str, default: Any) -> None:
    """Raise LinconError for a `width` that is no factor: `small` would make a network of another size."""
    if default is not Parameter.empty and default != 1:
        raise LinconError(
            f"{path}: width is {default!r}; the scheme small sets it, as a factor that is 1 by "
            "default. Leave the option out, and give a number of channels another name."
        )


def _arguments(
    parameters: Iterable[Parameter], values: dict[str, int]
) -> tuple[tuple[int, ...], dict[str, float]]:
    """Those of ``values`` that a function with these parameters gets: positional, and by name."""
    parameters = [p for p in parameters if p.name != "width"]
    by_name = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
    keywords = {p.name for p in parameters if p.kind in by_name}
    named: dict[str, float] = {name: values[name] for name in values if name in keywords}
    if named:
        return (), named
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return tuple(values.values()), {}
    positional = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    needed = sum(p.kind in positional and p.default is Parameter.empty for p in parameters)
    return tuple(values.values())[:needed], {}
