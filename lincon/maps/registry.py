"""Which generators there are, by name, and how a spec becomes a generator again."""

import warnings
from importlib.metadata import entry_points
from inspect import signature
from typing import Any, TypeVar

from torch import Tensor

from lincon.errors import FileError, LinconError, LinconWarning, UnknownGeneratorError
from lincon.generator import Generator

_registered: dict[str, type[Generator]] = {}
G = TypeVar("G", bound=type[Generator])


def register(cls: G) -> G:
    """Register a generator class under its `name`, as a decorator.

    Raises LinconError if the name is not lower case, if it is taken, or if the class is not named
    by it, capitalised.
    """
    name = cls.name
    class_name = name.lower().capitalize()
    if name != name.lower() or cls.__name__ != class_name:
        raise LinconError(
            f"Generator {cls.__name__} must be named {class_name} to be {name.lower()!r}."
        )
    if _registered.setdefault(name, cls) is not cls:
        raise LinconError(f"A generator named {name!r} is registered already: {_registered[name]}.")
    return cls


def available() -> list[str]:
    """The names of all generators, sorted.

    Those of other distributions are among them (entry points in the group `lincon.generators`).

    >>> "ring" in available()
    True
    """
    _load_plugins()
    return sorted(_registered)


def get(name: str) -> type[Generator]:
    """The class registered as ``name``; UnknownGeneratorError names the known ones.

    >>> get("ring").__name__
    'Ring'
    """
    if name not in _registered:
        _load_plugins()
    if name not in _registered:
        known = ", ".join(sorted(_registered))
        raise UnknownGeneratorError(f"No generator {name!r}; there are: {known}.")
    return _registered[name]


def registered(name: str) -> type[Generator] | None:
    """The class registered as ``name``, or None."""
    if name not in _registered:
        _load_plugins()
    return _registered.get(name)


def build(spec: dict[str, Any], tables: dict[str, Tensor] | None = None) -> Generator:
    """The generator that a spec (and its tables) describes.

    Raises FileError if the spec is of another version of the generator. Options that this version
    does not know are named in a warning and left out; the caller compares fingerprints, which tells
    whether they mattered.

    >>> spec = {"name": "hash", "version": 2, "rows": 6, "dof": 2, "seed": 0}
    >>> build(spec)
    Hash(rows=6, dof=2, seed=0)
    """
    cls = get(str(spec["name"]))
    if int(spec["version"]) != cls.version:
        raise FileError(
            f"Generator {cls.name!r} of version {spec['version']} cannot be rebuilt by this "
            f"lincon, which has version {cls.version}: install the lincon that wrote it."
        )
    known = signature(cls).parameters
    options = {}
    for option, value in dict(spec.get("options", {})).items():
        if option in known:
            options[option] = value
            continue
        warnings.warn(
            f"Generator {cls.name!r}: option {option!r} is unknown here and left out.",
            LinconWarning,
            stacklevel=2,
        )
    return cls(
        rows=int(spec["rows"]),
        dof=int(spec["dof"]),
        seed=int(spec["seed"]),
        **options,
        **(tables or {}),
    )


def _load_plugins() -> None:
    """Register the generators of other distributions; one that fails to load gets a warning."""
    for point in entry_points(group="lincon.generators"):
        if point.name in _registered:
            continue
        try:
            register(point.load())
        except Exception as error:  # of other distributions, whose code can fail in any way
            origin = point.dist.name if point.dist else "an unknown distribution"
            warnings.warn(
                f"The generator {point.name!r} of {origin} cannot be loaded ({error}): "
                "repair or uninstall it.",
                LinconWarning,
                stacklevel=3,
            )
