"""Skeletons drawn on pictures."""

from math import isfinite

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lincon import LinconError
from lincon.tasks.pose.skeleton import BONES, JOINTS

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Sky blue, vermilion and yellow of Okabe and Ito's palette, told apart by colour-blind readers as well.
COLOURS: dict[str, Colour] = {
    "left": (86, 180, 233),
    "right": (233, 94, 13),
    "middle": (240, 228, 66),
}
"""Of the person's own left and right side, and of what lies between."""

_DARK = (25, 25, 25)
_MIDPOINTS = {
    6: (2, 3),
    7: (12, 13),
}  # pelvis and thorax, where missing, lie between hips and between shoulders


def skeleton_on(image: Image.Image, points: Tensor, scores: Tensor | None = None) -> Image.Image:
    """The picture with bones and joints: blue the person's left, red the right; lines as wide as the picture needs.

    Args:
        image: any mode; stays as it is.
        points: (16, 2), (x, y) in pixels, (0, 0) the centre of the top left one; NaN where a joint
            is missing. Pelvis and thorax, which many models and data sets lack, are then put
            between the hips and between the shoulders.
        scores: (16,), 0 to 1, the opacity of each joint: 0 is missing. A bone is as opaque as its
            fainter end. None: 1.

    Returns:
        An RGB image of the same size.

    Raises:
        LinconError: points or scores are of another shape.
    """
    layer = _Layer(image.size)
    _solid(layer, *_present(points, scores))
    return layer.over(image)


class _Layer:
    """A transparent layer, a few times finer than the picture that it will lie over: shrunk, its edges are smooth.

    Coordinates and widths are in pixels of the picture.
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


def _present(points: Tensor, scores: Tensor | None) -> tuple[dict[int, Point], dict[int, float]]:
    """Place and opacity of each joint that is not missing."""
    if points.shape != (len(JOINTS), 2) or (scores is not None and scores.shape != (len(JOINTS),)):
        given = tuple(points.shape), None if scores is None else tuple(scores.shape)
        raise LinconError(
            f"A skeleton of points and scores of shapes {given}: pass (16, 2) and (16,) or None."
        )
    opacity = torch.ones(len(JOINTS)) if scores is None else scores.nan_to_num(0).clamp(0, 1)
    faint = dict(enumerate(opacity.tolist()))
    places = {
        joint: (x, y)
        for joint, (x, y) in enumerate(points.tolist())
        if isfinite(x) and isfinite(y) and faint[joint] > 0
    }
    for joint, (one, other) in _MIDPOINTS.items():
        if joint not in places and one in places and other in places:
            (left, top), (right, bottom) = places[one], places[other]
            places[joint] = (left + right) / 2, (top + bottom) / 2
            faint[joint] = min(faint[one], faint[other])
    return places, faint


def _side(*joints: int) -> str:
    return next(
        (side for joint in joints if (side := JOINTS[joint].split()[0]) in ("left", "right")),
        "middle",
    )


def _solid(layer: _Layer, places: dict[int, Point], opacity: dict[int, float]) -> None:
    """Bones and joints in colour, with a dark edge that keeps them readable on any ground."""
    wide = layer.width
    bones = [bone for bone in BONES if bone[0] in places and bone[1] in places]
    for edge in (True, False):
        for start, end in bones:
            colour = _DARK if edge else COLOURS[_side(start, end)]
            opaque = min(opacity[start], opacity[end])
            layer.line(places[start], places[end], wide * (1.7 if edge else 1), colour, opaque)
    for joint, place in places.items():
        layer.dot(place, 2.7 * wide, _DARK, opacity[joint])
        layer.dot(place, 2 * wide, COLOURS[_side(joint)], opacity[joint])
