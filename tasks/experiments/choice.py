"""Picking by name from a registry, with a message that lists what there is."""

from collections.abc import Mapping
from typing import TypeVar

from lincon import LinconError

T = TypeVar("T")


def choose(kind: str, name: str, registry: Mapping[str, T]) -> T:
    """The entry called ``name``; LinconError says what ``kind`` of thing is unknown and lists the known."""
    if name not in registry:
        raise LinconError(f"Unknown {kind} {name!r}; there are: {', '.join(registry)}.")
    return registry[name]
