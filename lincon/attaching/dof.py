"""Degrees of freedom as users give them: a number, a fraction of the rows, or a budget to be
divided."""

import math
from collections.abc import Mapping
from numbers import Integral, Number

from lincon.errors import DofError

Dof = int | float | None
"""How many free numbers: an integer, a fraction of the rows, or None where something else says it."""


def as_count(dof: Dof, rows: int, name: str = "dof") -> int:
    """A number of free parameters, from an integer or a fraction of ``rows``. ``name``: what an
    error calls it.

    Raises DofError for what is neither.

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
        return dof
    if dof > 1:
        raise DofError(f"{name}={dof!r} is a fraction above 1; give an integer for a number.")
    return max(1, round(dof * rows))


def apportion(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide a budget in proportion to sizes, by largest remainder, with at least one for each.

    Raises DofError if the budget is too small for that.

    >>> apportion(10, {"a": 1, "b": 50, "c": 49})
    {'a': 1, 'b': 5, 'c': 4}
    """
    if total < len(sizes):
        raise DofError(
            f"dof={total} cannot be divided among {len(sizes)} groups; give at least {len(sizes)}."
        )
    whole = sum(sizes.values())
    spare = total - len(sizes)
    shares = {label: 1 + spare * size // whole for label, size in sizes.items()}
    left = total - sum(shares.values())
    by_remainder = sorted(sizes, key=lambda label: -(spare * sizes[label] % whole))
    for label in by_remainder[:left]:
        shares[label] += 1
    return shares
