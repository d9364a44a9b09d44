"""What the figures of all experiments share: styles of curves, panels, legends."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes

from lincon.figure import Figure
from lincon.shapes import Float

# Okabe and Ito's palette without its yellow, which is too light for lines: colour-blind readers
# tell these apart, and their greys differ in print.
COLOURS = "#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
LINES = "-", "--", ":", "-."
MARKERS = "os^Dv<>"

CURVES = 8
"""The most curves of a panel that can be told apart."""

COLUMNS = 3
"""The most panels side by side: more would be wider than a page."""

T = TypeVar("T")


def style(number: int) -> dict[str, Any]:
    """Colour and line of curve ``number``, as `Axes.plot` takes them; each pair is used once.

    >>> style(0)["linestyle"], style(7)["linestyle"]
    ('-', '--')
    """
    round_, colour = divmod(number, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": LINES[round_ % len(LINES)], "linewidth": 1.3}


def marker(number: int) -> str:
    """The marker of curve ``number``."""
    return MARKERS[number % len(MARKERS)]


def shares(names: Sequence[T]) -> Iterator[list[T]]:
    """The curves of each panel, at most `CURVES`; the first, the reference, is in all of them.

    >>> [len(share) for share in shares(range(18))]
    [6, 7, 7]
    """
    if len(names) <= CURVES:
        yield list(names)
        return
    reference, *others = names
    count = -(-len(others) // (CURVES - 1))
    for number in range(count):
        start, stop = (len(others) * n // count for n in (number, number + 1))
        yield [reference, *others[start:stop]]


def panels(count: int, title: str, columns: int = COLUMNS, sharey: bool = False) -> list[Axes]:
    """Panels of one figure under its title, in rows of at most ``columns``, with axes of their own.

    With ``sharey`` a height means the same in all.
    """
    columns = 2 if count == 4 else min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.8 * columns, 3.6 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat
    for axes in grid[count:]:
        axes.remove()
    figure.suptitle(title, fontsize=9, wrap=True)
    return list(grid[:count])


def figure_of(axes: Axes) -> Figure:
    """The figure of a panel."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def band(
    axes: Axes,
    x: Sequence[float],
    values: Float[np.ndarray, "runs points"],
    number: int,
    label: str,
) -> None:
    """The mean over runs as curve ``number``, in a band of a standard deviation each way."""
    mean = values.mean(0)
    spread = values.std(0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
    drawn = style(number)
    alone = marker(number) if len(x) == 1 else None  # a point makes no line
    axes.plot(x, mean, label=label, marker=alone, **drawn)
    axes.fill_between(
        x, mean - spread, mean + spread, color=drawn["color"], alpha=0.15, linewidth=0
    )


def legend(axes: Sequence[Axes]) -> None:
    """One legend below all panels, each label once."""
    handles: dict[str, Any] = {}
    for each in axes:
        for handle, label in zip(*each.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        figure_of(axes[0]).legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=3 if len(axes) == 1 else 5,
            frameon=False,
            fontsize=8,
        )
