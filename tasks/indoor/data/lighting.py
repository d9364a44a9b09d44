"""Lamps in a room, the light that reaches its surfaces, and what a sensor makes of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from lincon.tasks.experiments.data.keyed_random import Draws
from lincon.tasks.experiments.data.noise import noise
from lincon.tasks.indoor.data.casting import shaded
from lincon.tasks.indoor.data.furnishing import Pieces
from lincon.tasks.indoor.data.geometry import dot

_CORNER = 0.5  # metres from a wall, floor or ceiling within which less light comes from everywhere


class Lamps(NamedTuple):
    """Two points of light in each of n rooms, and light from everywhere.

    place: (n, 2, 3).
    power: (n, 2): of what falls on a surface, times the square of the distance in metres.
    ambient: (n,).
    """

    place: Tensor
    power: Tensor
    ambient: Tensor


def lamps(draws: Draws, extent: Tensor) -> Lamps:
    """Under the ceilings of rooms of sizes ``extent`` (n, 3); only one in half of them."""
    share = torch.cat((draws.uniform(-0.35, 0.35, 2, 2), draws.uniform(0.8, 0.96, 2, 1)), -1)
    second = torch.stack((torch.ones(len(extent)), draws.happens(0.5).float()), 1)
    return Lamps(
        share * extent[:, None], draws.uniform(1.5, 4, 2) * second, draws.uniform(0.12, 0.4)
    )


def light(points: Tensor, normals: Tensor, extent: Tensor, lamps: Lamps, pieces: Pieces) -> Tensor:
    """(n, p): what falls on surfaces, Lambert's law. The first lamp throws shadows.

    points, normals: (3, n, p).
    """
    total = (normals[2] * 0.2 + 0.8) * lamps.ambient[:, None]
    arriving = [_arriving(points, normals, lamps, each) for each in range(2)]
    arriving[0] *= ~shaded(points, lamps.place[:, 0], *pieces.casters())
    return (total + arriving[0] + arriving[1]) * _open(points, normals, extent)


def exposed(reflected: Tensor, glow: Tensor, draws: Draws, keys: Tensor) -> Tensor:
    """(n, 3, p), uint8: a picture of what is ``reflected`` (3, n, p), exposed for its middle brightness.

    glow: (n, p): how bright glass is, whatever the exposure; 0 for all else.
    keys: (n,), int64, those of the noise.
    """
    _, n, pixels = reflected.shape
    middle = reflected[1, :, ::13].median(1).values.clamp_(min=1e-3)
    gain = (draws.uniform(0.14, 0.36) / middle)[:, None]
    tint = draws.uniform(0.88, 1.12, 3).T[..., None]
    shown = reflected * torch.where(glow > 0, glow, gain) * tint
    grain = noise(keys, 3 * pixels).view(n, 3, pixels) * draws.uniform(0.01, 0.09, 1, 1)
    return (
        shown.clamp_(0, 1)
        .sqrt_()
        .mul_(255)
        .transpose(0, 1)
        .add(grain)
        .clamp_(0, 255)
        .round_()
        .byte()
    )


def _arriving(points: Tensor, normals: Tensor, lamps: Lamps, which: int) -> Tensor:
    way = lamps.place[:, which].T[..., None] - points
    square = dot(way, way)
    return (
        dot(way, normals)
        .clamp_(min=0)
        .div_(square.sqrt().mul_(square + 0.3))
        .mul_(lamps.power[:, which, None])
    )


def _open(points: Tensor, normals: Tensor, extent: Tensor) -> Tensor:
    """(n, p): the share of light that corners leave."""
    x, y, z = points
    width, breadth, height = extent.T[..., None]
    distance = torch.stack(
        (width / 2 - x.abs(), breadth / 2 - y.abs(), torch.minimum(z, height - z))
    )
    close = (1 - distance / _CORNER).clamp_(min=0).square_() * (1 - normals * normals)
    first, second, third = 1 - 0.35 * close
    return first * second * third
