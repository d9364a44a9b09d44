"""The picture of a comparison: test accuracy by epoch, mean and spread over the seeds."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lincon.tasks.classification.training import Run

_TICKS = (0, 50, 80, 90, 95, 98, 99, 100)


def picture(runs: Sequence[Run], title: str) -> bytes:
    """Learning curves as a PNG: a line per scheme, its band one standard deviation each way."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for scheme in dict.fromkeys(run.scheme for run in runs):
        _draw(axes, scheme, 100 * np.array([run.test_accuracy for run in runs if run.scheme == scheme]))
    axes.set(title=title, xlabel="epoch", ylabel="test accuracy (%)")
    _stretch(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return _png(figure)


def _draw(axes: Axes, scheme: str, accuracy: np.ndarray) -> None:
    """``accuracy``: (seeds, epochs), percent."""
    epochs = np.arange(1, accuracy.shape[1] + 1)
    mean = accuracy.mean(0)
    spread = accuracy.std(0, ddof=1) if len(accuracy) > 1 else 0 * mean
    (drawn,) = axes.plot(epochs, mean, label=scheme, marker=".", linewidth=1.5)
    low, high = np.clip([mean - spread, mean + spread], 0, 100)
    axes.fill_between(epochs, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)


def _stretch(axes: Axes) -> None:
    """Make the axis logarithmic in the errors (plus half a percent): start and end can both be read."""
    axes.set_yscale("function", functions=(lambda y: -np.log(100.5 - y), lambda z: 100.5 - np.exp(-z)))
    axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
    axes.set_ylim(0, 100)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
