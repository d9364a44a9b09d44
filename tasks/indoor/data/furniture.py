"""Furniture and things on walls: how large each kind is, and which boxes make it up."""

from typing import NamedTuple

# The end of a box: a share of its piece, and metres to add. Shares are -1 at the left and in front,
# 1 at the right and behind; upwards they are 0 at the foot and 1 at the top.
End = tuple[float, float]
Span = tuple[End, End]


class Box(NamedTuple):
    """A box's two ends in each axis, and the number of its material: a piece has two."""

    x: Span
    y: Span
    z: Span
    material: int = 0


class Kind(NamedTuple):
    """A kind of piece.

    least, most: width, depth, height and height above the floor, in metres.
    at_wall: whether its back is to a wall.
    """

    least: tuple[float, float, float, float]
    most: tuple[float, float, float, float]
    at_wall: bool
    boxes: tuple[Box, ...]


def _at(share: float, start: float, end: float) -> Span:
    return (share, start), (share, end)


def _from(start: float, end: float, less: float = 0) -> Span:
    return (start, less), (end, -less)


_ALL, _UP = _from(-1, 1), _from(0, 1)
_LEFT, _RIGHT = _from(-1, 0, 0.012), _from(0, 1, 0.012)


def _sides(thick: float) -> tuple[Span, Span]:
    return _at(-1, 0, thick), _at(1, -thick, 0)


def _legs(height: float, thick: float) -> list[Box]:
    return [Box(x, y, _from(0, height)) for x in _sides(thick) for y in _sides(thick)]


def _framed(*panes: Span) -> tuple[Box, ...]:
    frame = Box(_ALL, _ALL, _UP)
    return frame, *(Box(pane, ((-1, -0.004), (1, 0)), _from(0, 1, 0.05), 1) for pane in panes)


_TABLE = (Box(_ALL, _ALL, _at(1, -0.04, 0)), *_legs(0.97, 0.05))
_CHAIR = (
    Box(_ALL, _ALL, _at(0.5, -0.04, 0), 1),
    *_legs(0.48, 0.035),
    *[Box(x, _at(1, -0.035, 0), _UP) for x in _sides(0.035)],
    Box(_ALL, _at(1, -0.03, -0.005), _from(0.65, 0.98), 1),
)
_CUPBOARD = (
    Box(_ALL, _ALL, _UP),
    *[Box(x, _at(-1, -0.02, 0), _from(0, 1, 0.05), 1) for x in (_LEFT, _RIGHT)],
    *[Box(_at(0, x, x + 0.02), _at(-1, -0.045, 0), _from(0.45, 0.6)) for x in (-0.06, 0.04)],
)
_BOARDS = (0.06, 0.29, 0.52, 0.76)
_BOOKS = ((-0.9, 0.2, 0.15), (-0.3, 0.9, 0.17), (-0.85, -0.1, 0.13), (0.1, 0.8, 0.16))
_SHELF = (
    Box(_ALL, _at(1, -0.02, 0), _UP),
    *[Box(x, _ALL, _UP) for x in _sides(0.025)],
    *[Box(_ALL, _ALL, _at(board, -0.025, 0)) for board in (*_BOARDS, 1)],
    *[
        Box(_from(start, end), _from(-0.6, 0.9), _from(board, board + high), 1)
        for board, (start, end, high) in zip(_BOARDS, _BOOKS, strict=True)
    ],
)
_BED = (
    Box(_ALL, _ALL, _from(0.06, 0.35)),
    Box(_from(-1, 1, 0.02), _from(-1, 1, 0.02), _from(0.35, 0.55), 1),
    Box(_ALL, _at(1, -0.05, 0), _UP),
    Box(_from(-0.75, 0.75), _from(0.6, 0.9), _from(0.55, 0.66), 1),
)
_SOFA = (
    Box(_ALL, _ALL, _from(0.08, 0.5)),
    Box(_ALL, _from(0.45, 1), _from(0.5, 1)),
    *[Box(x, _ALL, _from(0.5, 0.72)) for x in _sides(0.16)],
    *[
        Box(x, _from(-1, 0.45), _from(0.5, 0.62), 1)
        for x in (((-1, 0.17), (0, -0.01)), ((0, 0.01), (1, -0.17)))
    ],
)
_DOOR = (
    Box(_ALL, _from(-0.2, 1), _UP),
    *[Box(x, _ALL, _UP, 1) for x in (_at(-1, -0.06, 0), _at(1, 0, 0.06))],
    Box(_ALL, _ALL, _at(1, 0, 0.06), 1),
    Box(_at(1, -0.14, -0.04), _at(-1, -0.03, 0.02), _at(0.5, 0, 0.025), 1),
)
_WINDOW = _framed(((-1, 0.05), (0, -0.025)), ((0, 0.025), (1, -0.05)))

KINDS = {
    "window": Kind((0.8, 0.06, 0.9, 0.8), (2.2, 0.1, 1.4, 0.95), True, _WINDOW),
    "picture": Kind(
        (0.3, 0.02, 0.3, 1.0), (1.2, 0.05, 0.9, 1.35), True, _framed(_from(-1, 1, 0.04))
    ),
    "door": Kind((0.8, 0.03, 1.95, 0), (1.0, 0.05, 2.1, 0), True, _DOOR),
    "cupboard": Kind((0.8, 0.4, 0.7, 0), (2.0, 0.65, 2.1, 0), True, _CUPBOARD),
    "shelf": Kind((0.6, 0.25, 1.0, 0), (1.4, 0.4, 2.1, 0), True, _SHELF),
    "bed": Kind((1.0, 1.9, 0.8, 0), (1.8, 2.1, 1.1, 0), True, _BED),
    "sofa": Kind((1.4, 0.8, 0.7, 0), (2.2, 0.95, 0.9, 0), True, _SOFA),
    "table": Kind((0.8, 0.6, 0.68, 0), (1.8, 1.0, 0.8, 0), False, _TABLE),
    "chair": Kind((0.42, 0.42, 0.8, 0), (0.5, 0.5, 1.0, 0), False, _CHAIR),
    "box": Kind((0.2, 0.2, 0.2, 0), (0.7, 0.7, 0.8, 0), False, (Box(_ALL, _ALL, _UP),)),
}
"""A window's second material is glass."""
