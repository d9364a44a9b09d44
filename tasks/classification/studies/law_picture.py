"""The picture of the laws: test error against degrees of freedom, with fitted curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, NullFormatter

from lincon.tasks.classification.studies.laws import Fit
from lincon.tasks.experiments.sweeps.figures import COLOURS, marker

_SMALLEST = 0.01  # in the axis' unit: stands for zero if no run made any error


def picture(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    fits: Mapping[str, Fit],
    title: str,
    error: str = "test error (%)",
    unit: float = 100,
) -> Figure:
    """Test error against DoF, both axes logarithmic, a colour for each name.

    ``points`` are the DoF (n,) and accuracies (n,), fractions, of n runs. The picture shows their
    mean and one standard deviation each way. ``fits`` add the fitted curve and its 95 % bootstrap
    band, and the exponent with its interval to the legend. Half the smallest error of any run
    stands for zero, which a logarithmic axis does not have; curves end there. The axis is called
    ``error``, and an error of 1 is ``unit`` on it.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    figure.suptitle(title, fontsize=10, wrap=True)
    axes.set(xlabel="degrees of freedom", ylabel=error, xscale="log", yscale="log")
    smallest = _smallest(points, unit)
    for index, (name, (dof, accuracy)) in enumerate(points.items()):
        color = COLOURS[index % len(COLOURS)]
        label = name if name not in fits else f"{name}: {_label(fits[name])}"
        style = {"color": color, "fmt": marker(index), "label": label}
        errors = unit * (1 - np.asarray(accuracy))
        _draw_points(axes, np.asarray(dof), errors, smallest, style)
        if name in fits:
            _draw_fit(axes, fits[name], smallest, (color, unit))
    _tick(axes.xaxis, EngFormatter(sep=""))
    _tick(axes.yaxis, FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right center", frameon=False, labelspacing=0.8)
    return figure


def _smallest(points: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: float) -> float:
    errors = np.concatenate([unit * (1 - np.asarray(accuracy)) for _, accuracy in points.values()])
    return errors[errors > 0].min() / 2 if np.any(errors > 0) else _SMALLEST


def _draw_points(
    axes: Axes, dof: np.ndarray, error: np.ndarray, smallest: float, style: dict[str, Any]
) -> None:
    distinct = np.unique(dof)
    groups = [error[dof == each] for each in distinct]
    mean = np.maximum([group.mean() for group in groups], smallest)
    deviation = np.array([group.std(ddof=1) if len(group) > 1 else 0 for group in groups])
    low = np.maximum(mean - deviation, smallest)
    bars = [mean - low, deviation]
    axes.errorbar(distinct, mean, bars, markersize=5, capsize=3, linewidth=1, **style)


def _draw_fit(axes: Axes, fit: Fit, smallest: float, style: tuple[str, float]) -> None:
    color, unit = style
    dof = np.clip(np.geomspace(fit.low, fit.high, 200), fit.low, fit.high)
    best, high, low = unit * (1 - fit.curve(dof))
    axes.plot(dof, np.where(best < smallest, np.nan, best), color=color, linewidth=1.5)
    low, high = np.maximum(low, smallest), np.maximum(high, smallest)
    axes.fill_between(dof, low, high, color=color, alpha=0.15, linewidth=0)


def _label(fit: Fit) -> str:
    if "k" not in fit.parameters:
        return f"{fit.law} law"
    low, high = fit.intervals["k"]
    return f"{fit.law} law,\nk = {fit.parameters['k']:.3f} [{low:.3f}, {high:.3f}]"


def _tick(axis: Axis, formatter: Formatter) -> None:
    """Labels at 1, 2 and 5; within a decade at every digit, over more than four decades at 1."""
    low, high = axis.get_view_interval()
    digits: tuple[int, ...] = (1,)
    if high < 8 * low:
        digits = tuple(range(1, 10))
    elif high < 1e4 * low:
        digits = 1, 2, 5
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())
