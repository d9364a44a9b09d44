"""A cache of results per device, for tables that make a map fast and belong to no state."""

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Cache(dict[Any, Any]):
    """Results by method and arguments. A copy or a pickle of the cache is empty."""

    def __reduce__(self) -> tuple[type["Cache"], tuple[()]]:
        return Cache, ()


def per_device(
    method: Callable[Concatenate[Owner, torch.device, Arguments], Result],
) -> Callable[Concatenate[Owner, torch.device, Arguments], Result]:
    """Cache the results of a method by device and all other (hashable, positional) arguments.

    The results are computed outside of inference mode, because training may need them later.

    >>> class Squares:
    ...     @per_device
    ...     def table(self, device: torch.device, size: int) -> torch.Tensor:
    ...         return torch.arange(size, device=device) ** 2
    >>> squares = Squares()
    >>> squares.table(torch.device("cpu"), 3) is squares.table(torch.device("cpu"), 3)
    True
    """

    @wraps(method)
    def cached(
        owner: Owner, device: torch.device, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        call = method, device, args
        cache = vars(owner).get("_per_device", {})  # a step comes here for every tensor
        try:
            result: Result = cache[call]
        except KeyError:
            with torch.inference_mode(False):
                result = method(owner, device, *args, **kwargs)
            vars(owner).setdefault("_per_device", Cache())[call] = result
        return result

    return cached


def forget(owner: object) -> None:
    """Let go of an owner's results of all devices, and of its cached properties.

    >>> class Squares:
    ...     @per_device
    ...     def table(self, device: torch.device, size: int) -> torch.Tensor:
    ...         return torch.arange(size, device=device) ** 2
    >>> squares = Squares()
    >>> first = squares.table(torch.device("cpu"), 3)
    >>> forget(squares)
    >>> squares.table(torch.device("cpu"), 3) is first
    False
    """
    vars(owner).pop("_per_device", None)
    for name in list(vars(owner)):
        if isinstance(getattr(type(owner), name, None), cached_property):
            vars(owner).pop(name, None)
