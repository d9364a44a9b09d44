"""The picture of a comparison: test accuracy by epoch, mean and spread over the seeds."""

from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lincon.tasks.classification.training import Run

_TICKS = (0, 50, 80, 90, 95, 98, 99, 100)


def picture(runs: Sequence[Run], title: str) -> bytes:
    """Learning curves as a PNG: a line for each model, scheme and DoF, its band one standard deviation each way."""
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.subplots()
    styles = cycle("-", "--", ":", "-.")
    for number, (label, group) in enumerate(labelled(runs).items()):
        _draw(axes, label, styles(number // 10), 100 * np.array([run.test_accuracy for run in group]))
    figure.suptitle(title, fontsize=10, wrap=True)
    axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    _stretch(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return png(figure)


def labelled(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that differ by their seeds alone, by as short a name as tells them apart."""
    models, dofs = len({run.model for run in runs}) > 1, len({run.asked for run in runs} - {None}) > 1
    groups: dict[str, list[Run]] = {}
    for run in runs:
        dof = f" {run.asked:,}" if dofs and run.asked is not None else ""
        groups.setdefault((f"{run.model} " if models else "") + run.scheme + dof, []).append(run)
    return groups


def cycle(*values: str) -> Callable[[int], str]:
    """The values over and over, by number."""
    return lambda number: values[number % len(values)]


def _draw(axes: Axes, label: str, style: str, accuracy: np.ndarray) -> None:
    """``accuracy``: (seeds, epochs), percent."""
    epochs = np.arange(1, accuracy.shape[1] + 1)
    mean = accuracy.mean(0)
    spread = accuracy.std(0, ddof=1) if len(accuracy) > 1 else 0 * mean
    (drawn,) = axes.plot(epochs, mean, style, label=label, marker=".", linewidth=1.3)
    low, high = np.clip([mean - spread, mean + spread], 0, 100)
    axes.fill_between(epochs, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)


def _stretch(axes: Axes) -> None:
    """Make the axis logarithmic in the errors (plus half a percent): start and end can both be read."""
    axes.set_yscale("function", functions=(lambda y: -np.log(100.5 - y), lambda z: 100.5 - np.exp(-z)))
    axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.set_ylim(0, 100)


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
