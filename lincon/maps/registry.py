"""Which generators there are, by name, and how a spec becomes a generator again."""

import re
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from inspect import Parameter, isabstract, signature
from typing import Any, TypeVar

from torch import Tensor

from lincon.errors import FileError, LinconError, LinconWarning, UnknownGeneratorError
from lincon.generator import Generator

_registered: dict[str, type[Generator]] = {}
_loaded: set[str] = set()
"""The entry points that are loaded. The class says its name, whatever that of the entry point is."""
G = TypeVar("G", bound=type[Generator])


def register(cls: G) -> G:
    """Register a generator class under its `name`, as a decorator. The class may be named anyhow.

    Raises LinconError if it is no generator, does not say its name, or if the name is not one word
    of letters from a to z, digits, "-" and "_", or is another class's.
    """
    name = getattr(cls, "name", None)
    if not (isinstance(cls, type) and issubclass(cls, Generator)) or isabstract(cls):
        raise LinconError(
            f"{cls!r} cannot be registered: it must be a class derived from lincon.Generator that "
            "has _write and _accumulate, or from OneNonzero and has entries."
        )
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_-]*", name):
        raise LinconError(
            f"{cls.__name__} has name={name!r}: say in the class by which word users will ask for "
            "it, of letters from a to z, digits, '-' and '_', such as name = "
            f"{cls.__name__.lower()!r}."
        )
    if _is_another(_registered.get(name, cls), cls):
        raise LinconError(f"A generator named {name!r} is registered already: {_registered[name]}.")
    _registered[name] = cls
    return cls


def _is_another(old: type, new: type) -> bool:
    """Whether two classes come from two places. A notebook defines one again when its cell runs."""
    return (old.__module__, old.__qualname__) != (new.__module__, new.__qualname__)


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


def options_of(make: Callable[..., Generator]) -> dict[str, Parameter]:
    """What a generator class, or a callable that makes one, takes beyond rows, dof and seed.

    >>> list(options_of(get("fold")))
    ['chunk']
    """
    named = Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY
    parameters = signature(make).parameters.items()
    return {k: p for k, p in parameters if p.kind in named and k not in ("rows", "dof", "seed")}


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
    known = options_of(cls)
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
        if point.value in _loaded:
            continue
        try:
            register(point.load())
            _loaded.add(point.value)
        except Exception as error:  # of other distributions, whose code can fail in any way
            origin = point.dist.name if point.dist else "an unknown distribution"
            warnings.warn(
                f"The generator {point.name!r} of {origin} cannot be loaded ({error}): "
                "repair or uninstall it.",
                LinconWarning,
                stacklevel=3,
            )
