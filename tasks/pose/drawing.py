"""Skeletons drawn on pictures."""

from collections.abc import Iterator
from math import ceil, dist, isfinite

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Float
from lincon.tasks.pose.skeleton import BONES, JOINTS

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Sky blue, vermilion and yellow of Okabe and Ito's palette, which colour-blind readers tell apart.
COLOURS: dict[str, Colour] = {
    "left": (86, 180, 233),
    "right": (233, 94, 13),
    "middle": (240, 228, 66),
}
"""Colours of the person's own left and right side, and of what lies between."""

UNSURE = 0.3
"""Joints of a lower score are drawn hollow, and their bones dashed."""

_DARK = (25, 25, 25)
_MIDPOINTS = {6: (2, 3), 7: (12, 13)}  # the pelvis lies between hips, the thorax between shoulders


def skeleton_on(
    image: Image.Image,
    points: Float[Tensor, "..."],
    scores: Float[Tensor, "..."] | None = None,
) -> Image.Image:
    """A copy of the picture with bones and joints: the person's left is blue, the right red.

    Args:
        image: of any mode.
        points: (16, 2), (x, y) in pixels, (0, 0) the centre of the top left one; NaN where a joint
            is missing. Many models and data sets lack pelvis and thorax, which are then put between
            the hips and between the shoulders.
        scores: (16,), about 0 to 1; a joint with 0 is missing, one below `UNSURE` is hollow, and
            its bones are dashed. None: 1 for all.

    Returns:
        An RGB image of the same size.

    Raises:
        LinconError: points or scores are of another shape.
    """
    _check(points, scores)
    known = torch.ones(len(JOINTS)) if scores is None else scores.nan_to_num(0)
    layer = _Layer(image.size)
    _draw(layer, *_present(points.tolist(), known.tolist()))
    return layer.over(image)


class _Layer:
    """A transparent layer over a picture; coordinates and widths are in the picture's pixels.

    It is a few times finer than the picture, so that its edges are smooth once it is reduced.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.finer = max(1, min(4, 4096 // max(size)))
        self.image = Image.new("RGBA", (size[0] * self.finer, size[1] * self.finer))
        self.pen = ImageDraw.Draw(self.image)
        self.width = max(1.5, max(size) / 150)

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        ends = [self._fine(value) for point in (start, end) for value in point]
        self.pen.line(ends, (*colour, 255), max(1, round(width * self.finer)))

    def dot(self, centre: Point, width: float, colour: Colour) -> None:
        self._circle(centre, width, fill=(*colour, 255))

    def hole(self, centre: Point, width: float) -> None:
        """Let the picture show again in a circle."""
        self._circle(centre, width, fill=(0, 0, 0, 0))

    def _circle(self, centre: Point, width: float, fill: tuple[int, int, int, int]) -> None:
        x, y, radius = self._fine(centre[0]), self._fine(centre[1]), width * self.finer / 2
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

    def over(self, picture: Image.Image) -> Image.Image:
        base = picture.convert("RGBA")
        base.alpha_composite(self.image.reduce(self.finer))
        return base.convert("RGB")

    def _fine(self, value: float) -> float:
        return (value + 0.5) * self.finer - 0.5


def _check(points: Tensor, scores: Tensor | None) -> None:
    shapes = tuple(points.shape), None if scores is None else tuple(scores.shape)
    if shapes[0] != (len(JOINTS), 2) or shapes[1] not in (None, (len(JOINTS),)):
        raise LinconError(
            f"A skeleton of points and scores of shapes {shapes}: pass (16, 2) and (16,) or None."
        )


def _present(points: list[list[float]], scores: list[float]) -> tuple[dict[int, Point], set[int]]:
    """The place of each joint that is not missing, and which of them are sure."""
    places: dict[int, Point] = {}
    sure = {joint for joint, score in enumerate(scores) if score >= UNSURE}
    for joint, (x, y) in enumerate(points):
        if isfinite(x) and isfinite(y) and scores[joint] > 0:
            places[joint] = x, y
    for joint, (right, left) in _MIDPOINTS.items():
        if joint not in places and right in places and left in places:
            (x, y), (other_x, other_y) = places[right], places[left]
            places[joint] = (x + other_x) / 2, (y + other_y) / 2
            sure = sure | {joint} if {right, left} <= sure else sure - {joint}
    return places, sure


def _colour(*joints: int) -> Colour:
    """That of the first joint that is on one side of the body."""
    for joint in joints:
        side = JOINTS[joint].split()[0]
        if side in ("left", "right"):
            return COLOURS[side]
    return COLOURS["middle"]


def _draw(layer: _Layer, places: dict[int, Point], sure: set[int]) -> None:
    """Thin bones and joints in colour, with a dark edge that keeps them readable on any ground."""
    width = layer.width
    bones = [(start, end) for start, end in BONES if start in places and end in places]
    for is_edge in (True, False):
        for start, end in bones:
            colour = _DARK if is_edge else _colour(start, end)
            line_width = width + 2 * _edge(width) if is_edge else width
            whole = {start, end} <= sure
            for low, high in _strokes(places[start], places[end], None if whole else 4 * width):
                layer.line(low, high, line_width, colour)
    for joint, place in places.items():
        layer.dot(place, 3 * width + 2 * _edge(width), _DARK)
        layer.dot(place, 3 * width, _colour(joint))
        if joint not in sure:
            layer.dot(place, 1.6 * width + _edge(width), _DARK)
            layer.hole(place, 1.6 * width)


def _edge(width: float) -> float:
    """How far the dark edge stands out on each side of a line."""
    return max(0.75, width / 2)


def _strokes(start: Point, end: Point, dash: float | None) -> Iterator[tuple[Point, Point]]:
    """A line as it is, or as dashes of this length with gaps of the same."""
    if dash is None:
        yield start, end
        return
    length = dist(start, end)
    for low in range(0, max(1, ceil(length / dash)), 2):
        ends = (dash * each / max(length, 1e-9) for each in (low, low + 1))
        first, last = (
            (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
            for share in (min(1.0, each) for each in ends)
        )
        yield first, last
