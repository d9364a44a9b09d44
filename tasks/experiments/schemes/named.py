"""Schemes by name: those of a task, and every registered generator, with options after a colon.

"rpg", "ring:tile=1,order=deck" and "mine:block=8" are names; the generators of other distributions,
which entry points register, are among them. So is a generator class of the user's own,
"package.module:Class" or "package.module:Class:block=8".
"""

from collections.abc import Mapping
from inspect import Parameter
from typing import Any

import torch

from lincon import LinconError
from lincon.attaching.constrain import SHAPES
from lincon.generators import available, get, register
from lincon.maps.registry import options_of
from lincon.tasks.experiments.importing import find_function
from lincon.tasks.experiments.schemes.scheme import Scheme, constrained

_OF_CONSTRAIN: dict[str, dict[str, str | None]] = {
    "scope": {"model": "model", "tensor": "tensor"},
    "scale": {"match": "match", "isometric": "isometric", "none": None},
    "offset": {"seed": "seed"},  # of W₀ that is the model's own, a file would hold nothing
}
"""Options of `lincon.constrain` that every scheme of one generator takes: their values in words."""

_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def find_scheme(name: str, schemes: Mapping[str, Scheme]) -> Scheme:
    """The scheme called ``name``.

    Args:
        name: of one of ``schemes`` or of a generator, also with options.
        schemes: of a task, by name.

    Raises:
        LinconError: an unknown name, an unknown option, or a value that is not of its kind. What a
            generator says of a value shows when a model is built.

    >>> find_scheme("ring:tile=1,order=deck", {}).options
    {'tile': 1, 'order': 'deck'}
    """
    entry, colon, text = name.partition(":")
    own, more, options = text.partition(":")
    if own.isidentifier():  # no option: those have an equals sign
        scheme = constrained(_own_generator(entry, own))
        entry, colon, text = f"{entry}:{own}", more, options
    elif entry in schemes:
        scheme = schemes[entry]
    elif entry in available():
        scheme = constrained(entry)
    else:
        raise LinconError(
            f"Unknown scheme {entry!r}; there are: {_known(schemes)}. A generator of yours is "
            "package.module:Class."
        )
    if not colon:
        return scheme
    if not scheme.generator:
        raise LinconError(
            f"{name}: the scheme {entry} has no options, since it is no one generator."
        )
    chosen = {**scheme.options, **_parse(entry, text, scheme.generator)}
    return constrained(scheme.generator, **chosen)


def _own_generator(module: str, name: str) -> str:
    """The name under which a generator class of the user's own is registered, if need be now."""
    cls: Any = find_function("generator", module, name, available())
    return str(register(cls).name)


def generators_alone(schemes: Mapping[str, Scheme]) -> list[str]:
    """The generators whose names are not of ``schemes``: they are schemes under their own names."""
    return [name for name in available() if name not in schemes]


def defaults_of(generator: str) -> dict[str, Any]:
    """The options of a generator that a name may give, with their defaults.

    >>> defaults_of("fold")
    {'chunk': None}
    """
    return {
        name: parameter.default
        for name, parameter in options_of(get(generator)).items()
        if parameter.kind is Parameter.KEYWORD_ONLY
        and name != SHAPES  # which `constrain` gives
        and "Tensor" not in str(parameter.annotation)  # a table, such as a codebook's index
        and isinstance(parameter.default, bool | int | float | str | None)
    }


def needs_tables(generator: str) -> bool:
    """Whether a generator needs more than weights, dof and seed: tables cannot be given in a name.

    >>> needs_tables("ring"), needs_tables("matrix")
    (False, True)
    """
    try:
        get(generator).for_weights(torch.ones(16), 16, 0)
    except LinconError:
        return True
    except Exception:  # of somebody else's, which asks for shapes, or fits other weights than these
        return False
    return False


def _known(schemes: Mapping[str, Scheme]) -> str:
    """The names of all schemes; `rpg` and `ring`, which are the same, name each other."""
    names = {**dict.fromkeys(schemes, ""), **dict.fromkeys(generators_alone(schemes), "")}
    names |= {a: f" (the same as {b})" for a, b in (("rpg", "ring"), ("ring", "rpg"))}
    usable = [name for name in names if name in schemes or not needs_tables(name)]
    return ", ".join(f"{name}{names[name]}" for name in usable)


def _parse(entry: str, text: str, generator: str) -> dict[str, Any]:
    """The options in a text such as "tile=1,order=deck"; messages begin with ``entry``."""
    defaults, values = defaults_of(generator), {}
    for item in text.replace(" ", "").split(","):
        key, _, value = item.partition("=")
        if key in defaults:
            values[key] = _value(f"{entry}: {key}", value, defaults[key])
        elif key in _OF_CONSTRAIN:
            values[key] = _chosen(key, value)
        else:
            known = ", ".join([*defaults, *_OF_CONSTRAIN])
            raise LinconError(f"Unknown option {key!r} of {entry}; there are: {known}.")
    return values


def _chosen(key: str, value: str) -> str | None:
    if value not in _OF_CONSTRAIN[key]:
        raise LinconError(f"{key} is {value!r}; give {' or '.join(_OF_CONSTRAIN[key])}.")
    return _OF_CONSTRAIN[key][value]


def _value(key: str, text: str, default: Any) -> Any:
    """A text as a value of the kind of its default; None stands for any kind."""
    if isinstance(default, bool):
        if text.lower() not in _TRUTH:
            raise LinconError(f"{key} is {text!r}; give true or false.")
        return _TRUTH[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if not (isinstance(default, int) and kind is float):
            return float(number) if isinstance(default, float) else number
    if isinstance(default, int | float) or not text:
        noun = "an integer" if isinstance(default, int) else "a number"
        raise LinconError(f"{key} is {text!r}; give {noun if text else 'a value'}.")
    return text
