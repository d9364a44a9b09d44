"""Degrees of freedom as users give them: a number, a fraction of the rows, or a budget."""

import math
import warnings
from collections.abc import Mapping
from numbers import Integral, Number

from lincon.errors import DofError, LinconWarning

Dof = int | float | None
"""A number of free parameters, a fraction of the rows, or None if another option sets it."""


def as_count(dof: Dof, rows: int, name: str = "dof") -> int:
    """The number of free parameters that an integer or a fraction of ``rows`` means.

    Errors call it ``name``.

    Raises:
        DofError: ``dof`` is not a positive integer or a fraction up to 1.

    >>> as_count(0.5, 100), as_count(64, 100), as_count(0.001, 100)
    (50, 64, 1)
    """
    if isinstance(dof, Number) and not isinstance(dof, bool | int | float):  # NumPy's
        dof = int(dof) if isinstance(dof, Integral) else float(dof)
    if isinstance(dof, bool) or not isinstance(dof, int | float):
        raise DofError(f"{name}={dof!r}; give an integer or a fraction between 0 and 1.")
    if not math.isfinite(dof) or dof <= 0:
        raise DofError(f"{name}={dof!r}; it must be positive and finite.")
    if isinstance(dof, int):
        _warn_of_one(dof, rows, name)
        return dof
    if dof > 1:
        raise DofError(f"{name}={dof!r} is a fraction above 1; give an integer for a number.")
    return max(1, round(dof * rows))


def _warn_of_one(dof: int, rows: int, name: str) -> None:
    if dof == 1 < rows:
        warnings.warn(
            f"{name}=1 is one number of {rows}. A fraction has a point: {name}=1.0 is all of them.",
            LinconWarning,
            stacklevel=2,
        )


def apportion(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide a budget in proportion to sizes, by largest remainder, with at least one for each.

    Raises:
        DofError: the budget is smaller than the number of sizes.

    >>> apportion(10, {"a": 1, "b": 50, "c": 49})
    {'a': 1, 'b': 5, 'c': 4}
    """
    if total < len(sizes):
        raise DofError(
            f"dof={total} cannot be divided among {len(sizes)} groups; give at least {len(sizes)}."
        )
    size_of_all = sum(sizes.values())
    spare = total - len(sizes)
    shares = {label: 1 + spare * size // size_of_all for label, size in sizes.items()}
    remainder = total - sum(shares.values())
    by_remainder = sorted(sizes, key=lambda label: -(spare * sizes[label] % size_of_all))
    for label in by_remainder[:remainder]:
        shares[label] += 1
    return shares
