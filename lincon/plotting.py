"""The picture of a constrained model: which free numbers each tensor reads, and G itself: `plot`.

A colour says which free number a weight is, stripes and a minus say that its sign is flipped; the
numbers in the cells say the same without colour.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lincon.attaching.constraint import owned
from lincon.errors import LinconError
from lincon.generator import CHUNK, Generator, chunks
from lincon.shapes import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lincon.figure import Figure

COLOURS = ["#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00"]
"""Paul Tol's "light" scheme: distinct to colour-blind readers, under black text too."""
INK, FAINT = "#222222", "#8A8A8A"
CELL = 1.6

BINS = 240
"""The most parts in which the free vectors are shown."""
SAMPLED = 32
"""Rows of a tensor that are read to see what it reads, where rows read many free numbers."""
CELLS = 32, 16
"""The largest G, rows and dof, that is drawn cell by cell."""
PIXELS = 400
"""The most rows and the most free numbers of a G that is drawn at all."""

Weight = tuple[int, int]
"""Which free number a weight is, and its sign."""


@dataclass(frozen=True)
class _Reading:
    """A generated tensor, and how often it reads each of the free numbers of the model."""

    name: str
    rows: int
    reads: Float[Tensor, " dof"]


def plot(model: nn.Module) -> "Figure":
    """Draw which part of the free vector each tensor reads and, of a small model, G itself.

    Above, a line is a generated tensor and a column a part of the free vector; of several free
    vectors, one lies after the other. Where a row of G reads one free number, as those of ring and
    hash do, all rows are counted; else `SAMPLED` rows of each tensor.

    Args:
        model: a constrained model.

    Returns:
        A figure of matplotlib, which a notebook shows; ``figure.savefig`` writes it.

    Raises:
        LinconError: the model is not constrained.
        ModuleNotFoundError: matplotlib is not installed.

    >>> import lincon
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    >>> constraint = lincon.constrain(model, "ring", dof=8)
    >>> [axes.get_title() for axes in lincon.plot(model).axes if axes.get_title()]
    ['reads of each free number', 'Ŵ = G W']
    """
    groups = [group for _, constraint in owned(model) for group in constraint.groups]
    if not groups:
        raise LinconError("nothing in this model is constrained: call lincon.constrain first.")
    figure, above, below = _axes(groups)
    _draw_reads(above, list(_readings(model)), [group.generator.dof for group in groups])
    is_counted = all(group.generator.disjoint for group in groups)
    sampled = "" if is_counted else f", from {SAMPLED} rows of each tensor"
    above.set_title(f"reads of each free number{sampled}", fontsize=9)
    if below is not None:
        _draw_generator(below, groups)
    return figure


def _axes(groups: Sequence[Any]) -> tuple["Figure", "Axes", "Axes | None"]:
    """The figure, the axes of what is read, and those of G where it is small."""
    try:
        from lincon.figure import Figure
    except ModuleNotFoundError as error:
        remedy = "matplotlib is not installed: pip install 'lincon-torch[tasks]'"
        raise ModuleNotFoundError(remedy, name=error.name) from None
    tensors = sum(len(group.ledger) for group in groups)
    height = 1.3 + 0.22 * min(tensors, 60)
    if not _fits(groups, PIXELS, PIXELS):
        figure = Figure(figsize=(8, height), layout="constrained")
        return figure, figure.subplots(), None
    rows = sum(group.generator.rows for group in groups)
    tall = 0.8 + 0.2 * rows if _has_cells(groups) else 4.5
    figure = Figure(figsize=(8, height + tall), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(height, tall))
    return figure, above, below


def _fits(groups: Sequence[Any], rows: int, dof: int) -> bool:
    """Whether the G of all groups together is no larger than this."""
    generators = [group.generator for group in groups]
    sizes = sum(g.rows for g in generators), sum(g.dof for g in generators)
    return bool(sizes[0] <= rows and sizes[1] <= dof)


def _has_cells(groups: Sequence[Any]) -> bool:
    """Whether G is drawn cell by cell: it is small, and every row is plus or minus one number."""
    if not _fits(groups, *CELLS) or not all(group.generator.disjoint for group in groups):
        return False
    return all(bool((g.generator.dense().abs().sum(1) == 1).all()) for g in groups)


# What is read.


def _readings(model: nn.Module) -> Iterator[_Reading]:
    """Every generated tensor, with what it reads of the free vectors, one after the other."""
    groups = [(prefix, group) for prefix, constraint in owned(model) for group in constraint.groups]
    total = sum(group.generator.dof for _, group in groups)
    first = 0
    for prefix, group in groups:
        dof = group.generator.dof
        for entry in group.ledger:
            reads = torch.zeros(total, dtype=torch.float64, device="cpu")
            reads[first : first + dof] = _reads(group.generator, entry.start, entry.stop)
            yield _Reading(prefix + entry.name, entry.numel, reads)
        first += dof


def _reads(generator: Generator, start: int, stop: int) -> Float[Tensor, " dof"]:
    """How often the rows [start, stop) of G read each free number."""
    reads = torch.zeros(generator.dof, dtype=torch.float64, device="cpu")
    if generator.disjoint:
        for low, high in chunks(start, stop, 16 * CHUNK):
            column, sign = _entries(generator, low, high)
            reads += torch.bincount(column[sign != 0], minlength=generator.dof)
        return reads
    draw = torch.Generator().manual_seed(0)
    rows = torch.randperm(stop - start, generator=draw)[:SAMPLED] + start
    one = torch.ones(1, dtype=torch.float64, device="cpu")
    for row in rows.tolist():
        reads += generator.adjoint(one, row, row + 1) != 0
    return reads * ((stop - start) / len(rows))


def _entries(generator: Generator, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Column and value of the one nonzero of each of the rows [start, stop).

    A row is s W[j]: for W = 1 it is s, and for W = 1, 2, ... it is s (j + 1).
    """
    ones = torch.ones(generator.dof, dtype=torch.float64, device="cpu")
    value = generator.unpack(ones, start, stop)
    counted = generator.unpack(ones.cumsum(0), start, stop)
    column = (counted / torch.where(value == 0, 1, value)).round().long() - 1
    return column.clamp(min=0), value


def _draw_reads(axes: "Axes", readings: Sequence[_Reading], dofs: Sequence[int]) -> None:
    total = sum(dofs)
    bins = min(BINS, total)
    edges = torch.linspace(0, total, bins + 1).round().long().tolist()
    lines = [
        [float(each.reads[low:high].mean()) for low, high in pairwise(edges)] for each in readings
    ]
    extent = (0, total, len(lines), 0)
    shown = axes.imshow(
        lines, aspect="auto", interpolation="nearest", cmap="cividis", vmin=0, extent=extent
    )
    size = 8 if len(lines) <= 40 else 5
    axes.set_yticks(
        [place + 0.5 for place in range(len(lines))],
        [f"{each.name}  ({each.rows:,})" for each in readings],
        fontsize=size,
    )
    for place in range(1, len(lines)):
        axes.axhline(place, color="white", linewidth=0.6)
    end = 0
    for dof in dofs[:-1]:
        end += dof
        axes.axvline(end, color="white", linewidth=1.2)
    several = f" ({len(dofs)} free vectors, one after the other)" if len(dofs) > 1 else ""
    axes.set_xlabel(f"free number, of {total:,}{several}", fontsize=9)
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(shown, ax=axes, label="reads")


# G itself.


def _draw_generator(axes: "Axes", groups: Sequence[Any]) -> None:
    """G of all free vectors, a block each: cell by cell if there are few, else as an image."""
    axes.set_title("Ŵ = G W", fontsize=9)
    matrix = torch.block_diag(*(group.generator.dense() for group in groups))
    entries = [entry for group in groups for entry in group.ledger]
    ends = torch.tensor([0, *(entry.numel for entry in entries)]).cumsum(0).tolist()
    middles = [(low + high) / 2 for low, high in pairwise(ends)]
    if _has_cells(groups):
        is_ring = [group.generator.name for group in groups] == ["ring"]
        names = [entry.name for entry in entries]
        _draw_cells(axes, matrix, dict(zip(names, pairwise(ends), strict=True)), is_ring)
        return
    most = float(matrix.abs().max())
    shown = axes.imshow(
        matrix.numpy(), aspect="auto", interpolation="nearest", cmap="PuOr", vmin=-most, vmax=most
    )
    axes.set_yticks([middle - 0.5 for middle in middles], [e.name for e in entries], fontsize=8)
    for end in ends[1:-1]:
        axes.axhline(end - 0.5, color=INK, linewidth=0.8)
    axes.set_xlabel("free number", fontsize=9)
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(shown, ax=axes, label="G")


def _draw_cells(
    axes: "Axes", matrix: Tensor, rows: Mapping[str, tuple[int, int]], laps: bool
) -> None:
    """G cell by cell; ``rows`` are the first row of each tensor and the one after its last."""
    left, top = 3.5, 1.2
    count, dof = matrix.shape
    draw_matrix(axes, left, top, weights_of(matrix), dof, laps)
    for name, (low, high) in rows.items():
        text(axes, left - 0.4, top + (low + high) / 2, name, 8, ha="right")
        axes.plot([left - 0.3, left], [top + low, top + low], color=INK, linewidth=1)
    axes.set(xlim=(-3, dof + 10), ylim=(count + 1.5, -0.2), aspect="equal")
    axes.axis("off")


def weights_of(matrix: Float[Tensor, "rows dof"]) -> list[Weight]:
    """The one nonzero of each row of a G."""
    columns = matrix.abs().argmax(1)
    signs = matrix.gather(1, columns[:, None])[:, 0].sign()
    return list(zip(columns.tolist(), signs.int().tolist(), strict=True))


def text(axes: "Axes", x: float, y: float, words: str, size: float = 10, **style: Any) -> None:
    """Words centred at (x, y)."""
    centred = {"ha": "center", "va": "center", "color": INK}
    axes.text(x, y, words, fontsize=size, **centred | style)


def cell(
    axes: "Axes", x: float, y: float, weight: Weight, side: float = CELL, label: str = ""
) -> None:
    """A weight as a square, whose upper left corner is at (x, y)."""
    from matplotlib.patches import Rectangle

    column, sign = weight
    colour = COLOURS[column % len(COLOURS)]
    axes.add_patch(Rectangle((x, y), side, side, facecolor=colour, edgecolor="white", lw=0))
    if sign < 0:
        stripes = Rectangle((x, y), side, side, fill=False, hatch="////", edgecolor="white", lw=0)
        axes.add_patch(stripes)
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=INK, lw=0.6))
    size = 6 if label else 9 * math.sqrt(side / CELL)
    label = label or f"{'−' if sign < 0 else ''}{column + 1}"
    text(axes, x + side / 2, y + side / 2, label, size, weight="bold")


def draw_matrix(
    axes: "Axes", x: float, y: float, weights: Sequence[Weight], dof: int, laps: bool = True
) -> None:
    """Ŵ = G W, written out; with ``laps``, a dashed line ends each ``dof`` rows."""
    from matplotlib.patches import Rectangle

    rows = len(weights)
    for row, weight in enumerate(weights):
        cell(axes, x, y + row, weight, 1)
        for column in range(dof):
            corner = (x + 3 + column, y + row)
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#DDDDDD", lw=0.5))
        column, sign = weight
        cell(axes, x + 3 + column, y + row, weight, 1, "+1" if sign > 0 else "−1")
    for lap in range(1, -(-rows // dof) if laps else 1):
        height = y + lap * dof
        axes.plot([x + 2.6, x + 3 + dof + 0.4], [height, height], color=INK, lw=1.2, ls=(0, (3, 2)))
    frame = Rectangle((x + 3, y), dof, rows, fill=False, edgecolor=INK, lw=1.2)
    axes.add_patch(frame)
    middle = y + rows / 2
    for number in range(dof):
        cell(axes, x + dof + 5, middle - dof / 2 + number, (number, 1), 1)
    text(axes, x + 2, middle, "=", 15)
    text(axes, x + dof + 4, middle, "·", 20)
    text(axes, x + 0.5, y - 0.8, "$Ŵ$", 14)
    text(axes, x + 3 + dof / 2, y - 0.8, "$G$", 14)
    text(axes, x + dof + 5.5, middle - dof / 2 - 0.8, "$W$", 14)
