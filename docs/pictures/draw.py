"""Draw `ring.svg`: how a ring becomes the weights of three layers, and its G as a matrix.

    python docs/pictures/draw.py

Everything drawn is read from a real generator, `lincon.generators.Ring`. A colour says which free
number a weight is, stripes and a minus say that its sign is flipped; the numbers in the cells say
the same without colour.
"""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle, Wedge

from lincon.generators import Ring

DOF, SEED = 8, 0
LAYERS = {"conv1": (3, 3), "conv2": (2, 4), "head": (3, 2)}
ROWS = sum(height * width for height, width in LAYERS.values())
USES = ROWS // DOF, -(-ROWS // DOF)

COLOURS = ["#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00"]
"""Paul Tol's "light" scheme: distinct to colour-blind readers, under black text too."""
INK, FAINT = "#222222", "#8A8A8A"
CELL = 1.6

Weight = tuple[int, int]
"""Which free number a weight is, and its sign."""


def weights_of(ring: Ring) -> list[Weight]:
    """The one nonzero of each row of G."""
    matrix = ring.dense()
    columns = matrix.abs().argmax(1)
    signs = matrix.gather(1, columns[:, None])[:, 0]
    return list(zip(columns.tolist(), signs.int().tolist(), strict=True))


def text(axes: Axes, x: float, y: float, words: str, size: float = 10, **style: Any) -> None:
    centred = {"ha": "center", "va": "center", "color": INK}
    axes.text(x, y, words, fontsize=size, **centred | style)


def cell(
    axes: Axes, x: float, y: float, weight: Weight, side: float = CELL, label: str = ""
) -> None:
    """A weight as a square, whose upper left corner is at (x, y)."""
    column, sign = weight
    colour = COLOURS[column]
    axes.add_patch(Rectangle((x, y), side, side, facecolor=colour, edgecolor="white", lw=0))
    if sign < 0:
        stripes = Rectangle((x, y), side, side, fill=False, hatch="////", edgecolor="white", lw=0)
        axes.add_patch(stripes)
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=INK, lw=0.6))
    size = 6 if label else 9 * math.sqrt(side / CELL)
    label = label or f"{'−' if sign < 0 else ''}{column + 1}"
    text(axes, x + side / 2, y + side / 2, label, size, weight="bold")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    shaft = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=FAINT, lw=1.6)
    axes.add_patch(shaft)


def draw_ring(axes: Axes, x: float, y: float) -> None:
    """W as a ring around (x, y)."""
    angle = 360 / DOF
    for number in range(DOF):
        begin = -90 + (number - 0.5) * angle
        wedge = Wedge((x, y), 4.3, begin, begin + angle, width=1.9, lw=0.8)
        wedge.set(facecolor=COLOURS[number], edgecolor=INK)
        axes.add_patch(wedge)
        middle = math.radians(begin + angle / 2)
        at_x, at_y = x + 3.35 * math.cos(middle), y + 3.35 * math.sin(middle)
        text(axes, at_x, at_y, str(number + 1), 11, weight="bold")
    text(axes, x, y, "$W$", 19)


def draw_laps(axes: Axes, x: float, y: float, weights: list[Weight]) -> None:
    """A lap a line, and under each the names of the layers that its weights go to."""
    layer_of_row = [name for name, (high, wide) in LAYERS.items() for _ in range(high * wide)]
    for row, weight in enumerate(weights):
        lap, position = divmod(row, DOF)
        cell(axes, x + position * CELL, y + lap * 3, weight)
    for lap in range(-(-ROWS // DOF)):
        below = y + lap * 3 + CELL + 0.3
        text(axes, x - 0.5, y + lap * 3 + CELL / 2, f"lap {lap + 1}", ha="right")
        names = layer_of_row[lap * DOF : (lap + 1) * DOF]
        for name in dict.fromkeys(names):
            first, count = names.index(name), names.count(name)
            ends = [x + first * CELL + 0.15, x + (first + count) * CELL - 0.15]
            axes.plot(ends, [below, below], color=FAINT, lw=2, solid_capstyle="butt")
            text(axes, sum(ends) / 2, below + 0.5, name if count > 1 else "", 8, color=FAINT)


def draw_layers(axes: Axes, x: float, y: float, weights: list[Weight]) -> None:
    """The same weights in the shapes of the layers."""
    remaining = iter(weights)
    for name, (height, width) in LAYERS.items():
        for line in range(height):
            for column in range(width):
                cell(axes, x + column * CELL, y + line * CELL, next(remaining))
        text(axes, x + width * CELL / 2, y + 3 * CELL + 0.7, f"{name}  {height} × {width}")
        x += width * CELL + 1.5


def draw_matrix(axes: Axes, x: float, y: float, weights: list[Weight]) -> None:
    """Ŵ = G W, written out."""
    for row, weight in enumerate(weights):
        cell(axes, x, y + row, weight, 1)
        for column in range(DOF):
            corner = (x + 3 + column, y + row)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#DDDDDD", lw=0.5))
        column, sign = weight
        cell(axes, x + 3 + column, y + row, weight, 1, "+1" if sign > 0 else "−1")
    for lap in range(1, -(-ROWS // DOF)):
        height = y + lap * DOF
        axes.plot([x + 2.6, x + 3 + DOF + 0.4], [height, height], color=INK, lw=1.2, ls=(0, (3, 2)))
    frame = Rectangle((x + 3, y), DOF, ROWS, fill=False, edgecolor=INK, lw=1.2)
    axes.add_patch(frame)
    middle = y + ROWS / 2
    for number in range(DOF):
        cell(axes, x + 13, middle - DOF / 2 + number, (number, 1), 1)
    text(axes, x + 2, middle, "=", 15)
    text(axes, x + 12, middle, "·", 20)
    text(axes, x + 0.5, y - 0.8, "$Ŵ$", 14)
    text(axes, x + 3 + DOF / 2, y - 0.8, "$G$", 14)
    text(axes, x + 13.5, middle - DOF / 2 - 0.8, "$W$", 14)


def main() -> None:
    weights = weights_of(Ring(ROWS, DOF, seed=SEED))
    plt.rcParams.update({"svg.hashsalt": "lincon", "hatch.linewidth": 1.1})
    figure = plt.figure(figsize=(12, 6.6), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, 48.5), ylim=(26.6, -0.35), aspect="equal")
    axes.axis("off")

    text(axes, 4.8, 1, f"{DOF} free numbers on a ring:\nonly they are trained", 11)
    draw_ring(axes, 4.8, 7.9)
    arrow(axes, (9.4, 7.9), (11.6, 7.9))
    text(
        axes,
        20.9,
        1,
        "each lap reads them all, in its own order,\nand flips some signs (striped)",
        11,
    )
    draw_laps(axes, 14.5, 3.7, weights)
    arrow(axes, (20.9, 13.1), (20.9, 16.3))
    text(axes, 4.8, 20.2, f"end to end, the laps\nare the {ROWS} weights $Ŵ$\nof three layers", 11)
    draw_layers(axes, 12.2, 17.8, weights)
    text(axes, 40.9, 1, f"as a matrix: one nonzero a row,\n{USES[0]} or {USES[1]} in a column", 11)
    draw_matrix(axes, 33.9, 3.4, weights)

    path = Path(__file__).parent / "ring.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
