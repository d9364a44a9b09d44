"""The figure of scores against a number, such as the DoF or the bits, a line for each scheme."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from lincon.figure import Figure
from lincon.tasks.experiments.sweeps.figures import (
    figure_of,
    legend,
    marker,
    panels,
    shares,
    style,
)

Curve = Mapping[float, Sequence[float]]
"""The number -> scores of the runs with it."""


def against(curves: Mapping[str, Curve], title: str, x: str, y: str) -> Figure:
    """Mean scores, with bars of one standard deviation each way, on a logarithmic axis of numbers.

    Args:
        curves: by scheme.
        title: of the figure.
        x: what the number is.
        y: what the scores are, with the unit.
    """
    names = list(curves)
    parts = list(shares(names))
    grid = panels(len(parts), title)
    for axes, part in zip(grid, parts, strict=True):
        for name in part:
            _draw(axes, curves[name], names.index(name), name)
        axes.set(xlabel=x, ylabel=y)
        axes.set_xscale("log", base=2)
        numbers = sorted({number for curve in curves.values() for number in curve})
        if len(numbers) <= 6:
            axes.set_xticks(numbers)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: short(number)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    legend(grid)
    return figure_of(grid[0])


def short(number: float) -> str:
    """A number of a tick, to three digits.

    >>> short(288), short(5480.67), short(2_300_000)
    ('288', '5.48k', '2.3M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _draw(axes: Axes, curve: Curve, number: int, label: str) -> None:
    numbers = sorted(curve)
    means = [mean(curve[each]) for each in numbers]
    spreads = [stdev(curve[each]) if len(curve[each]) > 1 else 0.0 for each in numbers]
    axes.errorbar(
        numbers,
        means,
        spreads,
        marker=marker(number),
        markersize=5,
        capsize=3,
        label=label,
        **style(number),
    )
