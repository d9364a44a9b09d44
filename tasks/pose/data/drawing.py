"""A rasteriser for batches of pictures: tapered capsules in their order of depth, and boxes, with smooth edges.

Each pixel is computed by the same elementary operations whatever else is in the batch, none of them
fused: so a picture has the same bits in any.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Capsules(NamedTuple):
    """k capsules in each of n pictures, with a radius and a colour at either end. Lengths in pixels.

    start, end: (n, k, 2), (x, y).
    radii: (n, k, 2), at start and end, positive.
    colours: (n, k, 2, 3), near the start and near the end.
    change: (n, k), where one colour becomes the other, from 0 (start) to 1 (end).
    rim: (n, k), how much darker the edge is, from 0 to 1.
    depth: (n, k): what is higher hides what is lower.
    """

    start: Tensor
    end: Tensor
    radii: Tensor
    colours: Tensor
    change: Tensor
    rim: Tensor
    depth: Tensor


def paint(canvas: Tensor, capsules: Capsules) -> None:
    """Draw capsules on ``canvas`` (n, 3, size, size), in place, from the farthest to the nearest."""
    if len(canvas) == 0:
        return
    order = capsules.depth.argsort(dim=1, stable=True)
    rows = torch.arange(len(canvas))[:, None]
    sorted_capsules = [of[rows, order].unbind(1) for of in capsules]
    for parts in zip(*sorted_capsules, strict=True):
        _paint_one(canvas, Capsules(*parts))


def _paint_one(canvas: Tensor, capsule: Capsules) -> None:
    """One capsule in each picture, all in windows of one shape: pixels that it cannot reach are not visited."""
    n, _, height, width = canvas.shape
    first, second = capsule.start - capsule.radii[:, :1], capsule.end - capsule.radii[:, 1:]
    low = torch.minimum(first, second).floor() - 1
    first, second = capsule.start + capsule.radii[:, :1], capsule.end + capsule.radii[:, 1:]
    high = torch.maximum(first, second).ceil() + 1
    left, wide = _window(low[:, 0], high[:, 0], width)
    top, tall = _window(low[:, 1], high[:, 1], height)
    columns, lines = left[:, None] + torch.arange(wide), top[:, None] + torch.arange(tall)
    colour, cover = _seen(capsule, columns.float(), lines.float())
    place = (lines[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(n, 3, -1)
    pixels = canvas.view(n, 3, -1)
    below = pixels.gather(2, place)
    pixels.scatter_(
        2, place, colour.view_as(below).sub_(below).mul_(cover.view(n, 1, -1)).add_(below)
    )


def _window(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, int]:
    """First pixels (n,) of stretches that hold ``low`` to ``high``, as far as that is seen, and their one length."""
    low, high = low.clamp(0, size - 1), high.clamp(0, size - 1)
    length = int((high - low).max().item()) + 1
    return low.clamp(max=size - length).long(), length


def _seen(capsule: Capsules, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Colour (n, 3, tall, wide) and cover (n, tall, wide) at columns ``x`` (n, wide) and lines ``y`` (n, tall)."""
    axis = capsule.end - capsule.start
    length = (axis[:, 0] * axis[:, 0] + axis[:, 1] * axis[:, 1]).sqrt()
    pointing = length < 1e-3  # at the viewer: a disc, of any direction
    across = torch.where(pointing, 1, axis[:, 0] / length)[:, None]
    down = torch.where(pointing, 0, axis[:, 1] / length)[:, None]
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
    """A rectangle in each of n pictures. Lengths in pixels.

    centre: (n, 2), (x, y).
    half: (n, 2), half its sides; negative for none.
    direction: (n, 2), unit vector along the first side.
    colour: (n, 3).
    """

    centre: Tensor
    half: Tensor
    direction: Tensor
    colour: Tensor


def paint_boxes(canvas: Tensor, boxes: Boxes) -> None:
    """Draw the boxes on ``canvas`` (n, 3, height, width), in place."""
    x = torch.arange(canvas.shape[3]) - boxes.centre[:, :1]
    y = torch.arange(canvas.shape[2]) - boxes.centre[:, 1:]
    across, down = boxes.direction[:, :1], boxes.direction[:, 1:]
    along = (y * down)[:, :, None] + (x * across)[:, None]
    aside = (y * across)[:, :, None] - (x * down)[:, None]
    long, short = boxes.half[:, :, None, None].unbind(1)
    cover = along.abs_().neg_().add_(long + 0.5).clamp_(0, 1)
    cover.mul_(aside.abs_().neg_().add_(short + 0.5).clamp_(0, 1))
    canvas += (boxes.colour[:, :, None, None] - canvas).mul_(cover[:, None])
