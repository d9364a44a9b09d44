"""The figure of a comparison: scores on the test set by epoch, with their spread over seeds."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lincon.figure import Figure
from lincon.shapes import Float
from lincon.tasks.experiments.sweeps.figures import band, figure_of, legend, panels, shares
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

STRETCHED = 80
"""Percent from which a figure shows errors, not scores, on equal terms: they tell curves apart."""

_ROUND = 0, 100, 50, 90, 80, 95, 98, 99, 70, 85, 60, 92, 96, 97, 75, 94, 88, 86, 84, 82
"""Percents that an axis may have ticks at, the roundest first."""


def picture(runs: Sequence[Run], title: str, measure: Measure) -> Figure:
    """Learning curves: a panel for each DoF asked for, a line for each model and scheme.

    Runs of schemes that take no DoF are in all panels. The band is one standard deviation each way.
    If there are too many lines to tell apart, a DoF has several panels.
    """
    asked = dict.fromkeys(run.asked for run in runs if run.asked is not None)
    dofs: list[int | float | None] = list(asked) or [None]
    labels = list(group_by_label(runs, dof=False))
    parts = list(product(dofs, shares(labels)))
    grid = panels(len(parts), title, sharey=True)
    best = measure.factor * max(max(run.curve) for run in runs)
    for axes, (dof, part) in zip(grid, parts, strict=True):
        shown = group_by_label([run for run in runs if run.asked in (dof, None)], dof=False)
        for label in part:
            if label in shown:
                scores = measure.factor * np.array([run.curve for run in shown[label]])
                _draw(axes, scores, labels.index(label), label)
        axes.set_title("" if len(dofs) == 1 else f"dof {dof:,}", fontsize=9)
        _set_axes(axes, measure, best)
    legend(grid)
    return figure_of(grid[0])


def group_by_label(runs: Sequence[Run], dof: bool = True) -> dict[str, list[Run]]:
    """Runs that differ in their seeds only, by as short a label as tells the groups apart.

    Args:
        runs: of any models, schemes and DoF.
        dof: whether the DoF may be in the label.
    """
    several_models = len({run.model for run in runs}) > 1
    several_dofs = dof and len({run.asked for run in runs} - {None}) > 1
    groups: dict[str, list[Run]] = {}
    for run in runs:
        model = f"{run.model} " if several_models else ""
        number = f" {run.asked:,}" if several_dofs and run.asked is not None else ""
        groups.setdefault(f"{model}{run.scheme}{number}", []).append(run)
    return groups


def _draw(axes: Axes, scores: Float[np.ndarray, "seeds epochs"], number: int, label: str) -> None:
    band(axes, range(1, scores.shape[1] + 1), scores, number, label)


def _set_axes(axes: Axes, measure: Measure, best: float) -> None:
    axes.set(xlabel="epoch", ylabel=f"test {measure.label}")
    if measure.higher_is_better and best >= STRETCHED:
        axes.set_ylabel(f"test {measure.label} (spaced by errors)")
        _stretch(axes, best)
    axes.label_outer()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _stretch(axes: Axes, best: float) -> None:
    """Make the axis logarithmic in the errors (plus half a percent).

    Both the start and the end of the curves can then be read.
    """
    axes.set_yscale("function", functions=(_stretched, lambda z: 100.5 - np.exp(-z)))
    top = min(100, best + (100 - best) / 4)
    axes.set_ylim(0, top)
    ticks = ticks_up_to(top)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])


def ticks_up_to(top: float) -> list[int]:
    """The roundest percents from 0 to ``top`` that lie well apart on the stretched axis.

    >>> ticks_up_to(100)
    [0, 50, 80, 90, 95, 98, 100]
    >>> ticks_up_to(86)
    [0, 20, 50, 60, 70, 80, 85]
    """
    apart = (_stretched(top) - _stretched(0)) / 10
    ticks: list[int] = []
    for tick in (*_ROUND, 20, 40, 30, 10):
        gaps = [abs(_stretched(tick) - _stretched(other)) for other in ticks]
        if tick <= top and all(gap >= apart for gap in gaps):
            ticks.append(tick)
    return sorted(ticks)


def _stretched(percent: Any) -> Any:
    """Percent, a number or an array, as places on the axis."""
    return -np.log(np.maximum(100.5 - percent, 0.5))
