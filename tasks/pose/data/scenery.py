"""The rest of a picture of people: ground, clutter, something in front, light and noise."""

from functools import cache

import torch
from torch import Tensor

from lincon.shapes import Float, Int64, UInt8
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.experiments.data.noise import noise
from lincon.tasks.experiments.data.rotations import rotation
from lincon.tasks.pose.data.drawing import Boxes, paint_boxes

_CLUTTER = 3  # boxes and bars behind the people


def background(draws: KeyedRandom, size: int) -> Float[Tensor, "n 3 size size"]:
    """Clouds of two sizes, stripes in some pictures, and clutter; values around [0, 1]."""
    clouds = draws.uniform(0.05, 0.5, 3, 3, 3) + draws.uniform(0.05, 0.5, 1, 3, 3)
    canvas = _enlarged(clouds, size) + _enlarged(draws.uniform(-0.13, 0.13, 3, 11, 11), size)
    _add_stripes(canvas, draws)
    for _ in range(_CLUTTER):
        paint_boxes(canvas, _clutter(draws, size))
    return canvas


def obstacle(draws: KeyedRandom, size: int) -> Boxes:
    """Something in front of the person in a third of the pictures: a post, a rail, or a box."""
    centre = draws.uniform(0.15, 0.85, 2) * size
    thin, long = draws.uniform(0.02, 0.05) * size, draws.uniform(0.1, 0.6) * size
    broad = torch.where(draws.happens(0.4), draws.uniform(0.06, 0.12) * size, thin)
    long = torch.where(broad > thin, broad * 1.3, long)
    half = torch.where(draws.happens(0.33, 1), torch.stack((long, broad), 1), -1)
    return Boxes(centre, half, _direction(draws), draws.uniform(0, 1, 3))


def lit(
    canvas: Float[Tensor, "n 3 height width"], draws: KeyedRandom, keys: Int64[Tensor, " n"]
) -> UInt8[Tensor, "n 3 height width"]:
    """The picture in the light of a lamp of some colour at some side, with the camera's noise.

    ``canvas`` is used up. ``keys`` are those of the noise.
    """
    height, width = canvas.shape[2:]
    slope = draws.uniform(-0.3, 0.3, 2) / torch.tensor([width, height])
    across = (torch.arange(width) - (width - 1) / 2) * slope[:, :1]
    down = (torch.arange(height) - (height - 1) / 2) * slope[:, 1:]
    light = (draws.uniform(0.6, 1.15, 1, 1) + across[:, None]) + down[:, :, None]
    tint = draws.uniform(0.9, 1.1, 3)[:, :, None, None] * 255
    grain = noise(keys, canvas.shape[1:].numel()).view_as(canvas)
    grain = grain * draws.uniform(0.02, 0.22, 1, 1, 1)
    return canvas.mul_(light[:, None]).mul_(tint).add_(grain).clamp_(0, 255).round_().byte()


def _add_stripes(canvas: Tensor, draws: KeyedRandom) -> None:
    size = canvas.shape[-1]
    direction = _direction(draws) * draws.uniform(2, 9, 1) / size
    across, down = torch.arange(size) * direction[:, :1], torch.arange(size) * direction[:, 1:]
    phase = across[:, None] + down[:, :, None]
    wave = (phase - phase.floor()).sub_(0.5).abs_().mul_(4).sub_(1)
    strength = draws.uniform(-0.25, 0.25, 3) * draws.happens(0.4, 1)
    canvas += wave[:, None] * strength[:, :, None, None]


def _clutter(draws: KeyedRandom, size: int) -> Boxes:
    centre = draws.uniform(0, 1, 2) * size
    short, long = draws.uniform(0.02, 0.16) * size, draws.uniform(0.1, 0.5) * size
    half = torch.where(draws.happens(0.7, 1), torch.stack((long, short), 1), -1)
    return Boxes(centre, half, _direction(draws), draws.uniform(0, 1, 3))


def _direction(draws: KeyedRandom) -> Tensor:
    """(n, 2): upright or level but for a small tilt, as most things are."""
    return rotation(2, draws.index(2) * 90 + draws.uniform(-12, 12))[:, :2, 0]


def _enlarged(coarse: Tensor, size: int) -> Tensor:
    """(n, 3, m, m) -> (n, 3, size, size), bilinear, corner to corner."""
    low, share = _places(coarse.shape[-1], size)
    rows = coarse[:, :, low] * (1 - share)[:, None] + coarse[:, :, low + 1] * share[:, None]
    return rows[..., low].mul_(1 - share).add_(rows[..., low + 1].mul_(share))


@cache
def _places(count: int, size: int) -> tuple[Tensor, Tensor]:
    place = torch.arange(size) * ((count - 1) / (size - 1))
    low = place.long().clamp(max=count - 2)
    return low, place - low
