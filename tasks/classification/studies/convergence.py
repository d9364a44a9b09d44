"""Convergence: steps to reach a share of an accuracy, constrained and vanilla, on one schedule."""

from collections.abc import Sequence
from math import inf
from statistics import mean, median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lincon import LinconError
from lincon.figure import Figure
from lincon.tasks.experiments.sweeps.curves import group_by_label
from lincon.tasks.experiments.sweeps.figures import band, figure_of, legend, panels, shares
from lincon.tasks.experiments.sweeps.picked import with_picked
from lincon.tasks.experiments.sweeps.report import Result, mean_and_spread, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tune import tune
from lincon.tasks.experiments.training.run import Run

_plain = FuncFormatter(lambda value, _: f"{value:g}")
SHARES = 0.9, 0.95, 0.99
NOTE = (
    "Steps (median over the seeds, counted in whole epochs) until the test accuracy first reaches "
    "a share of its own final value, and of vanilla's; – where it never does. Mean loss: of the "
    "training loss over all epochs, lower where a scheme fits sooner."
)


def convergence(sweep: Sweep) -> Result:
    """Train every cell, vanilla's included, and write the table, numbers and curves.

    Raises LinconError if vanilla is not among the schemes.
    """
    if not any(cell.scheme == "vanilla" for cell in sweep.cells):
        raise LinconError("convergence compares with vanilla: add it to --schemes.")
    sweep = tune(sweep)
    runs = sweep.run()
    data = sweep.data
    result = summarise(runs, sweep.title, len(data.train_dataloader()))
    result = with_picked(result, sweep, [group[0] for group in group_by_label(runs).values()])
    result.write(sweep, runs)
    return result


def summarise(runs: Sequence[Run], title: str, steps: int) -> Result:
    """``steps``: in an epoch."""
    groups = group_by_label(runs)
    vanilla: dict[str, list[float]] = {}
    for run in runs:
        if run.scheme == "vanilla":
            vanilla.setdefault(run.model, []).append(run.score)
    table = [
        _line(label, group, steps, mean(vanilla[group[0].model])) for label, group in groups.items()
    ]
    header = [
        "scheme",
        "dof",
        "final accuracy %",
        *(f"steps to {share:.0%} of its own" for share in SHARES),
        *(f"steps to {share:.0%} of vanilla's" for share in SHARES),
        "mean loss",
    ]
    rows = [
        (
            entry["scheme"],
            f"{entry['dof']:,}",
            with_spread(entry["accuracy"], entry["spread"]),
            *(_text(entry["own"][share]) for share in SHARES),
            *(_text(entry["vanilla"][share]) for share in SHARES),
            f"{entry['loss']:.3f}",
        )
        for entry in table
    ]
    numbers = {"table": table, "steps_per_epoch": steps}
    return Result(title, header, rows, numbers, picture(groups, title), [NOTE])


def _line(label: str, runs: Sequence[Run], steps: int, reference: float) -> dict[str, Any]:
    accuracy, spread = mean_and_spread([100 * run.score for run in runs])
    own, vanilla = {}, {}
    for share in SHARES:
        own[share] = _median([reached(run, share * run.score, steps) for run in runs])
        vanilla[share] = _median([reached(run, share * reference, steps) for run in runs])
    return {
        "scheme": label,
        "dof": runs[0].dof,
        "accuracy": accuracy,
        "spread": spread,
        "own": own,
        "vanilla": vanilla,
        "loss": mean(mean(run.train_loss) for run in runs),
    }


def reached(run: Run, accuracy: float, steps: int) -> int | None:
    """Steps until a run's test accuracy is first at least ``accuracy``; None if it never is."""
    for epoch, value in enumerate(run.curve, 1):
        if value >= accuracy:
            return epoch * steps
    return None


def _median(values: Sequence[int | None]) -> int | None:
    """The median, with None for runs that never got there; None if it is one of these."""
    value = median(inf if each is None else each for each in values)
    return None if value == inf else round(value)


def _text(steps: int | None) -> str:
    return "–" if steps is None else f"{steps:,}"


def picture(groups: dict[str, list[Run]], title: str) -> Figure:
    """Training loss and test accuracy by epoch, side by side, a line and band for each scheme."""
    parts = list(shares(list(groups)))
    grid = panels(2 * len(parts), title, columns=2)
    for losses, accuracies, part in zip(grid[::2], grid[1::2], parts, strict=True):
        for label in part:
            number, runs = list(groups).index(label), groups[label]
            epochs = range(1, len(runs[0].train_loss) + 1)
            band(losses, epochs, np.array([run.train_loss for run in runs]), number, label)
            scores = 100 * np.array([run.curve for run in runs])
            band(accuracies, epochs, scores, number, label)
        _label(losses, "training loss (nats)")
        losses.set_yscale("log")
        losses.yaxis.set_major_formatter(_plain)
        losses.yaxis.set_minor_formatter(_plain)
        _label(accuracies, "test accuracy (%)")
    legend(grid)
    return figure_of(grid[0])


def _label(axes: Axes, values: str) -> None:
    axes.set(xlabel="epoch", ylabel=values)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
