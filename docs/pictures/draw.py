"""Draw `ring.svg`: how a ring becomes the weights of three layers, and its G as a matrix.

    python docs/pictures/draw.py

Everything drawn is read from a real generator, `lincon.generators.Ring`. A colour says which free
number a weight is, stripes and a minus say that its sign is flipped; the numbers in the cells say
the same without colour.
"""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Wedge

from lincon.generators import Ring
from lincon.plotting import CELL, COLOURS, FAINT, INK, Weight, cell, draw_matrix, text, weights_of

DOF, SEED = 8, 0
LAYERS = {"conv1": (3, 3), "conv2": (2, 4), "head": (3, 2)}
ROWS = sum(height * width for height, width in LAYERS.values())
USES = ROWS // DOF, -(-ROWS // DOF)


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


def main() -> None:
    weights = weights_of(Ring(ROWS, DOF, seed=SEED).dense())
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
    draw_matrix(axes, 33.9, 3.4, weights, DOF)

    path = Path(__file__).parent / "ring.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
