"""The picture of a comparison: the score on the test set by epoch, mean and spread over the seeds."""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

STRETCHED = 80
"""Percent from which errors are what tells curves apart."""

_TICKS = (0, 50, 80, 90, 95, 98, 99, 100)


def picture(runs: Sequence[Run], title: str, measure: Measure) -> bytes:
    """Learning curves as a PNG: a panel for each DoF asked for, those of no DoF in all; a line a model and scheme.

    The band is one standard deviation each way.
    """
    dofs: list[Any] = list(dict.fromkeys(run.asked for run in runs if run.asked is not None)) or [
        None
    ]
    figure = Figure(figsize=(5.5 * len(dofs) + 4.5, 5.5), layout="constrained")
    names: dict[str, int] = {}
    best = measure.factor * max(max(run.curve) for run in runs)
    for axes, dof in zip(figure.subplots(1, len(dofs), squeeze=False)[0], dofs, strict=True):
        for label, group in group_by_label(
            [run for run in runs if run.asked in (dof, None)], dof=False
        ).items():
            number = names.setdefault(label, len(names))
            _draw(axes, label, number, measure.factor * np.array([run.curve for run in group]))
        axes.set(
            title="" if len(dofs) == 1 else f"dof {dof}",
            xlabel="epoch",
            ylabel=f"test {measure.label}",
        )
        if measure.higher_is_better and best >= STRETCHED:
            _stretch(axes, best)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=10, wrap=True)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9
    )
    return png(figure)


def group_by_label(runs: Sequence[Run], dof: bool = True) -> dict[str, list[Run]]:
    """Runs that differ by their seeds alone, by as short a name as tells them apart; ``dof``: which may be in it."""
    models, dofs = (
        len({run.model for run in runs}) > 1,
        dof and len({run.asked for run in runs} - {None}) > 1,
    )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        number = f" {run.asked:,}" if dofs and run.asked is not None else ""
        groups.setdefault((f"{run.model} " if models else "") + run.scheme + number, []).append(run)
    return groups


def cycle(*values: str) -> Callable[[int], str]:
    """The values over and over, by number."""
    return lambda number: values[number % len(values)]


def _draw(axes: Axes, label: str, number: int, scores: np.ndarray) -> None:
    """``scores``: (seeds, epochs)."""
    epochs = np.arange(1, scores.shape[1] + 1)
    mean = scores.mean(0)
    spread = scores.std(0, ddof=1) if len(scores) > 1 else 0 * mean
    (drawn,) = axes.plot(
        epochs,
        mean,
        cycle("-", "--", ":", "-.")(number // 10),
        color=f"C{number % 10}",
        label=label,
        linewidth=1.3,
    )
    low, high = np.maximum([mean - spread, mean + spread], 0)
    axes.fill_between(epochs, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)


def _stretch(axes: Axes, best: float) -> None:
    """Make the axis logarithmic in the errors (plus half a percent): start and end can both be read."""
    axes.set_yscale(
        "function",
        functions=(lambda y: -np.log(np.maximum(100.5 - y, 0.5)), lambda z: 100.5 - np.exp(-z)),
    )
    axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.set_ylim(0, min(100, best + (100 - best) / 4))


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
