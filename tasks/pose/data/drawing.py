"""A rasteriser for batches of pictures: tapered capsules by depth, and boxes, with smooth edges.

Each pixel is computed by the same elementary operations whatever else is in the batch, none of them
fused: so a picture has the same bits in any.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lincon.shapes import Float


class Capsules(NamedTuple):
    """k capsules in each of n pictures, with a radius and a colour at either end.

    start, end: (x, y), pixels.
    radii: at start and end, pixels, positive.
    colours: near the start and near the end.
    change: where one colour becomes the other, from 0 (start) to 1 (end).
    rim: how much darker the edge is, from 0 to 1.
    depth: a capsule hides those of lower depth.
    """

    start: Float[Tensor, "n k 2"]
    end: Float[Tensor, "n k 2"]
    radii: Float[Tensor, "n k 2"]
    colours: Float[Tensor, "n k 2 3"]
    change: Float[Tensor, "n k"]
    rim: Float[Tensor, "n k"]
    depth: Float[Tensor, "n k"]


def paint(canvas: Float[Tensor, "n 3 height width"], capsules: Capsules) -> None:
    """Draw capsules on ``canvas``, in place, from the farthest to the nearest."""
    if len(canvas) == 0:
        return
    order = capsules.depth.argsort(dim=1, stable=True)
    rows = torch.arange(len(canvas))[:, None]
    by_depth = [field[rows, order].unbind(1) for field in capsules]
    for capsule in zip(*by_depth, strict=True):
        _paint_one(canvas, Capsules(*capsule))


def _paint_one(canvas: Tensor, capsule: Capsules) -> None:
    """One capsule in each picture. Windows of one shape leave out most pixels beyond its reach."""
    n, _, height, width = canvas.shape
    start_radius, end_radius = capsule.radii[:, :1], capsule.radii[:, 1:]
    low = torch.minimum(capsule.start - start_radius, capsule.end - end_radius).floor() - 1
    high = torch.maximum(capsule.start + start_radius, capsule.end + end_radius).ceil() + 1
    left, wide = _window(low[:, 0], high[:, 0], width)
    top, tall = _window(low[:, 1], high[:, 1], height)
    columns, lines = left[:, None] + torch.arange(wide), top[:, None] + torch.arange(tall)
    colour, cover = _shaded(capsule, columns.float(), lines.float())
    index = (lines[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(n, 3, -1)
    pixels = canvas.view(n, 3, -1)
    below = pixels.gather(2, index)
    # below + cover (colour - below), without more memory than the window's colours.
    above = colour.view_as(below).sub_(below).mul_(cover.view(n, 1, -1)).add_(below)
    pixels.scatter_(2, index, above)


def _window(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, int]:
    """First pixels (n,) and one length of stretches that hold the visible part of low to high."""
    low, high = low.clamp(0, size - 1), high.clamp(0, size - 1)
    length = int((high - low).max().item()) + 1
    return low.clamp(max=size - length).long(), length


def _shaded(capsule: Capsules, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Colour (n, 3, tall, wide) and cover (n, tall, wide) of a window's pixels.

    Args:
        x: (n, wide), columns.
        y: (n, tall), lines.
    """
    axis = capsule.end - capsule.start
    length = (axis[:, 0] * axis[:, 0] + axis[:, 1] * axis[:, 1]).sqrt()
    is_disc = length < 1e-3  # it points at the viewer: any direction will do
    across = torch.where(is_disc, 1, axis[:, 0] / length)[:, None]
    down = torch.where(is_disc, 0, axis[:, 1] / length)[:, None]
    length = length[:, None, None]

    x, y = x - capsule.start[:, :1], y - capsule.start[:, 1:]
    along = (y * down)[:, :, None] + (x * across)[:, None]
    aside = (y * across)[:, :, None] - (x * down)[:, None]
    nearest = torch.minimum(along.clamp(min=0), length)
    start, end = capsule.radii[:, :, None, None].unbind(1)
    radius = nearest * ((end - start) / length.clamp(min=1e-3)) + start
    beyond = along - nearest
    distance = beyond.mul_(beyond).add_(aside.mul_(aside)).sqrt_()

    share = along.sub_(capsule.change[:, None, None] * length).add_(0.5).clamp_(0, 1)
    rim = (distance / radius).clamp_(max=1)
    light = rim.mul_(rim).mul_(-capsule.rim[:, None, None]).add_(1)
    near, far = capsule.colours[..., None, None].unbind(1)
    colour = (share[:, None] * (far - near)).add_(near).mul_(light[:, None])
    return colour, radius.sub_(distance).add_(0.5).clamp_(0, 1)


class Boxes(NamedTuple):
    """A rectangle in each of n pictures.

    centre: (x, y), pixels.
    half: half of each side, pixels; negative where a picture has no box.
    direction: unit vector along the first side.
    """

    centre: Float[Tensor, "n 2"]
    half: Float[Tensor, "n 2"]
    direction: Float[Tensor, "n 2"]
    colour: Float[Tensor, "n 3"]


def paint_boxes(canvas: Float[Tensor, "n 3 height width"], boxes: Boxes) -> None:
    """Draw the boxes on ``canvas``, in place."""
    x = torch.arange(canvas.shape[3]) - boxes.centre[:, :1]
    y = torch.arange(canvas.shape[2]) - boxes.centre[:, 1:]
    across, down = boxes.direction[:, :1], boxes.direction[:, 1:]
    along = (y * down)[:, :, None] + (x * across)[:, None]
    aside = (y * across)[:, :, None] - (x * down)[:, None]
    long, short = boxes.half[:, :, None, None].unbind(1)
    cover = along.abs_().neg_().add_(long + 0.5).clamp_(0, 1)
    cover.mul_(aside.abs_().neg_().add_(short + 0.5).clamp_(0, 1))
    canvas += (boxes.colour[:, :, None, None] - canvas).mul_(cover[:, None])
