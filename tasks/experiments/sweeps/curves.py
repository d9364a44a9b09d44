"""The picture of a comparison: scores on the test set by epoch, with their spread over seeds."""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lincon.shapes import Float
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

STRETCHED = 80
"""Percent from which a picture shows errors, not scores, on equal terms: they tell curves apart."""

_TICKS = (0, 50, 80, 90, 95, 98, 99, 100)


def picture(runs: Sequence[Run], title: str, measure: Measure) -> bytes:
    """Learning curves as a PNG: a panel for each DoF asked for, a line for each model and scheme.

    Runs of schemes that take no DoF are in all panels. The band is one standard deviation each way.
    """
    asked = dict.fromkeys(run.asked for run in runs if run.asked is not None)
    dofs: list[int | float | None] = list(asked) or [None]
    best = measure.factor * max(max(run.curve) for run in runs)
    figure = Figure(figsize=(5.5 * len(dofs) + 4.5, 5.5), layout="constrained")
    panels = figure.subplots(1, len(dofs), squeeze=False)[0]
    numbers: dict[str, int] = {}  # so that a label has the same style in all panels
    for axes, dof in zip(panels, dofs, strict=True):
        shown = [run for run in runs if run.asked in (dof, None)]
        for label, group in group_by_label(shown, dof=False).items():
            number = numbers.setdefault(label, len(numbers))
            _draw(axes, label, number, measure.factor * np.array([run.curve for run in group]))
        axes.set_title("" if len(dofs) == 1 else f"dof {dof}")
        _set_axes(axes, measure, best)
    figure.suptitle(title, fontsize=10, wrap=True)
    _add_legend(figure)
    return png(figure)


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


def cycle(*values: str) -> Callable[[int], str]:
    """The values over and over, by number.

    >>> cycle("-", "--")(3)
    '--'
    """
    return lambda number: values[number % len(values)]


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _draw(axes: Axes, label: str, number: int, scores: Float[np.ndarray, "seeds epochs"]) -> None:
    epochs = np.arange(1, scores.shape[1] + 1)
    mean = scores.mean(0)
    spread = scores.std(0, ddof=1) if len(scores) > 1 else 0 * mean
    # Ten colours; every further ten lines have another style.
    style = cycle("-", "--", ":", "-.")(number // 10)
    colour = f"C{number % 10}"
    axes.plot(epochs, mean, style, color=colour, label=label, linewidth=1.3)
    low, high = np.maximum([mean - spread, mean + spread], 0)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def _set_axes(axes: Axes, measure: Measure, best: float) -> None:
    axes.set(xlabel="epoch", ylabel=f"test {measure.label}")
    if measure.higher_is_better and best >= STRETCHED:
        _stretch(axes, best)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _stretch(axes: Axes, best: float) -> None:
    """Make the axis logarithmic in the errors (plus half a percent).

    Both the start and the end of the curves can then be read.
    """
    axes.set_yscale(
        "function",
        functions=(lambda y: -np.log(np.maximum(100.5 - y, 0.5)), lambda z: 100.5 - np.exp(-z)),
    )
    axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.set_ylim(0, min(100, best + (100 - best) / 4))


def _add_legend(figure: Figure) -> None:
    """Add one legend of all panels, each label once."""
    handles = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[label] = handle
    figure.legend(
        handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9
    )
