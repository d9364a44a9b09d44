"""Objects that are alive somewhere in the process, such as optimisers that were made before."""

import gc
from typing import Any


def living(*types: type) -> list[Any]:
    """All objects of these types and of types derived from them.

    >>> class Thing: ...
    >>> thing = Thing()
    >>> living(Thing) == [thing]
    True
    """
    wanted = set(types)
    for each in types:
        wanted |= _derived(each)
    return [thing for thing in gc.get_objects() if type(thing) in wanted]


def _derived(parent: type) -> set[type]:
    children: set[type] = set(parent.__subclasses__())
    return children.union(*map(_derived, children))
