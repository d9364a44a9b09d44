"""What it costs to make the weights, beside what the model does with them.

Both are counted in multiplications. Of the model it is known only that it uses its weights: `USES`
times a forward is what a linear layer does at a batch of 64. A convolution uses them more often, a
small batch less. A multiplication of the model's is the cheaper one, since products of matrices read
each weight once for all uses; so where `Cost.ratio` is large, the time is larger still.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from lincon.errors import LinconWarning
from lincon.generator import Generator
from lincon.maps.registry import get

USES = 64
"""How often a model is taken to use each of its weights in a forward."""
CALLS = 1 << 20
"""The multiplications that take as long as a model's calls alone, however small its tensors are."""
DEAR = 10
"""The ratio above which `constrain` warns."""
UNNOTICED = 1e8
"""Multiplications in a forward, about a tenth of a second, below which `constrain` says nothing."""
RATE = 1e9
"""About the multiplications a second that a core does for a generator."""
SUGGESTED = "ring", "hash", "fold", "fastfood", "kronecker", "sparse"
TIMED_SECONDS = 2e-3
"""A block of rows is timed if it takes as long as this."""
TIMED_ROWS = 1 << 20
"""No more rows are made to time a generator."""


@dataclass(frozen=True)
class Cost:
    """The multiplications by which a forward makes all weights, and the number of weights."""

    work: float
    rows: int

    @property
    def ratio(self) -> float:
        """How many times what the model does with its weights."""
        return self.work / max(USES * self.rows, CALLS)

    def __str__(self) -> str:
        each = f"{self.work / self.rows:,.0f}"
        noun = "multiplication" if each == "1" else "multiplications"
        return f"{each} {noun} a weight, {self.ratio:,.2f} x the model"


def at_a_time(sizes: Sequence[int], materialize: str) -> Sequence[int]:
    """The numbers of rows that a generator makes at a time for tensors of these sizes.

    >>> at_a_time([10, 20], "model"), at_a_time([10, 20], "layer")
    ([30], [10, 20])
    """
    return sizes if materialize == "layer" else [sum(sizes)]


def cost_of(parts: Iterable[tuple[Generator, Sequence[int]]]) -> Cost | None:
    """The cost of generators, each with the numbers of rows that it makes at a time.

    None if it is not known: a generator does not count its work, and is too large to be timed.

    >>> from lincon.generators import Dense, Ring
    >>> print(cost_of([(Dense(rows=10**6, dof=10**4), [10**6])]))
    10,000 multiplications a weight, 156.25 x the model
    """
    work, rows = 0.0, 0
    for generator, sizes in parts:
        each = [generator.work(size) for size in sizes]
        counted = [work for work in each if work is not None]
        if len(counted) < len(each):
            if (seconds := _seconds_a_row(generator)) is None:
                return None
            counted = [RATE * seconds * max(size, generator.grain) for size in sizes]
        work, rows = work + sum(counted), rows + sum(sizes)
    return Cost(work, rows)


def warn_of_cost(parts: Sequence[tuple[Generator, Sequence[int]]], stacklevel: int) -> None:
    """Warn if making the weights takes more than `DEAR` times what the model does with them."""
    cost = cost_of(parts)
    if cost is None or cost.ratio <= DEAR or cost.work < UNNOTICED:
        return
    names = ", ".join(sorted({generator.name for generator, _ in parts}))
    warnings.warn(
        f"{names}: a forward makes {cost.rows:,} weights by about {cost.work:.1e} multiplications, "
        f"{cost.ratio:,.0f} times what the model itself does with them at a batch of {USES}: some "
        f"{cost.work / RATE:,.1f} seconds on a core. Give less dof, or a generator that fits: "
        f"{', '.join(_fitting(parts))}.",
        LinconWarning,
        stacklevel=stacklevel + 1,
    )


def _fitting(parts: Sequence[tuple[Generator, Sequence[int]]]) -> list[str]:
    """Names of generators that would make the same weights without a warning."""
    fitting = []
    for name in SUGGESTED:
        cls = get(name)
        if not cls.allows_unused and any(each.dof > each.rows for each, _ in parts):
            continue
        cost = cost_of([(cls(each.rows, each.dof), sizes) for each, sizes in parts])
        if cost is not None and cost.ratio <= DEAR:
            fitting.append(name)
    return fitting


def _seconds_a_row(generator: Generator) -> float | None:
    """The time of a row, from the smallest block of rows that takes long enough to be timed."""
    rows = max(64, generator.grain)
    with torch.no_grad():
        free = torch.zeros(generator.dof, device="cpu")
        while rows <= TIMED_ROWS:
            size = min(rows, generator.rows)
            seconds = min(_seconds(generator, free, size) for _ in range(2))
            if seconds > TIMED_SECONDS or size == generator.rows:
                return seconds / size
            rows *= 4
    return None


def _seconds(generator: Generator, free: torch.Tensor, rows: int) -> float:
    start = perf_counter()
    generator.unpack(free, 0, rows)
    return perf_counter() - start
