"""Skeletons drawn on pictures."""

from math import isfinite

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
        scores: (16,), 0 to 1, the opacity of each joint; a joint with 0 is missing. A bone is as
            opaque as its fainter end. None: 1 for all.

    Returns:
        An RGB image of the same size.

    Raises:
        LinconError: points or scores are of another shape.
    """
    _check(points, scores)
    opacity = torch.ones(len(JOINTS)) if scores is None else scores.nan_to_num(0).clamp(0, 1)
    layer = _Layer(image.size)
    _draw(layer, *_present(points.tolist(), opacity.tolist()))
    return layer.over(image)


class _Layer:
    """A transparent layer over a picture; coordinates and widths are in the picture's pixels.

    It is a few times finer than the picture, so that its edges are smooth once it is reduced.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.finer = max(1, min(4, 4096 // max(size)))
        self.image = Image.new("RGBA", (size[0] * self.finer, size[1] * self.finer))
        self.pen = ImageDraw.Draw(self.image)
        self.width = max(1.0, max(size) / 85)

    def line(
        self, start: Point, end: Point, width: float, colour: Colour, opacity: float = 1
    ) -> None:
        ends = [self._fine(value) for point in (start, end) for value in point]
        self.pen.line(ends, (*colour, round(255 * opacity)), max(1, round(width * self.finer)))

    def dot(self, centre: Point, width: float, colour: Colour, opacity: float = 1) -> None:
        x, y, radius = self._fine(centre[0]), self._fine(centre[1]), width * self.finer / 2
        self.pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), (*colour, round(255 * opacity))
        )

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


def _present(
    points: list[list[float]], opacity: list[float]
) -> tuple[dict[int, Point], dict[int, float]]:
    """Place and opacity of each joint that is not missing."""
    places: dict[int, Point] = {}
    opacities = dict(enumerate(opacity))
    for joint, (x, y) in enumerate(points):
        if isfinite(x) and isfinite(y) and opacity[joint] > 0:
            places[joint] = x, y
    for joint, (right, left) in _MIDPOINTS.items():
        if joint not in places and right in places and left in places:
            (x, y), (other_x, other_y) = places[right], places[left]
            places[joint] = (x + other_x) / 2, (y + other_y) / 2
            opacities[joint] = min(opacities[right], opacities[left])
    return places, opacities


def _colour(*joints: int) -> Colour:
    """That of the first joint that is on one side of the body."""
    for joint in joints:
        side = JOINTS[joint].split()[0]
        if side in ("left", "right"):
            return COLOURS[side]
    return COLOURS["middle"]


def _draw(layer: _Layer, places: dict[int, Point], opacity: dict[int, float]) -> None:
    """Bones and joints in colour, with a dark edge that keeps them readable on any ground."""
    width = layer.width
    bones = [(start, end) for start, end in BONES if start in places and end in places]
    for is_edge in (True, False):
        for start, end in bones:
            colour = _DARK if is_edge else _colour(start, end)
            fainter = min(opacity[start], opacity[end])
            line_width = width * 1.7 if is_edge else width
            layer.line(places[start], places[end], line_width, colour, fainter)
    for joint, place in places.items():
        layer.dot(place, 2.7 * width, _DARK, opacity[joint])
        layer.dot(place, 2 * width, _colour(joint), opacity[joint])
