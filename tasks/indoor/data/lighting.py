"""Lamps in a room, the light that reaches its surfaces, and the picture that a sensor takes."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from lincon.shapes import Float, Int64, UInt8
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.experiments.data.noise import noise
from lincon.tasks.indoor.data.casting import shaded
from lincon.tasks.indoor.data.furnishing import Pieces
from lincon.tasks.indoor.data.geometry import dot

_CORNER = 0.5  # metres: nearer to a wall, floor or ceiling less ambient light arrives


class Lamps(NamedTuple):
    """Two points of light in each of n rooms, and ambient light.

    power: light that falls on a surface, times the square of the distance in metres.
    """

    place: Float[Tensor, "n 2 3"]
    power: Float[Tensor, "n 2"]
    ambient: Float[Tensor, " n"]


def lamps(draws: KeyedRandom, extent: Float[Tensor, "n 3"]) -> Lamps:
    """Lamps under the ceilings of rooms of sizes ``extent``; half of the rooms have only one."""
    share = torch.cat((draws.uniform(-0.35, 0.35, 2, 2), draws.uniform(0.8, 0.96, 2, 1)), -1)
    second = torch.stack((torch.ones(len(extent)), draws.happens(0.5).float()), 1)
    power, ambient = draws.uniform(1.5, 4, 2) * second, draws.uniform(0.12, 0.4)
    return Lamps(share * extent[:, None], power, ambient)


def light(
    points: Float[Tensor, "3 n p"],
    normals: Float[Tensor, "3 n p"],
    extent: Float[Tensor, "n 3"],
    lamps: Lamps,
    pieces: Pieces,
) -> Float[Tensor, "n p"]:
    """The light that falls on surfaces, by Lambert's law. The first lamp throws shadows."""
    total = (normals[2] * 0.2 + 0.8) * lamps.ambient[:, None]
    arriving = [_arriving(points, normals, lamps, each) for each in range(2)]
    arriving[0] *= ~shaded(points, lamps.place[:, 0], *pieces.casters())
    return (total + arriving[0] + arriving[1]) * _open(points, normals, extent)


def exposed(
    reflected: Float[Tensor, "3 n p"],
    glow: Float[Tensor, "n p"],
    draws: KeyedRandom,
    keys: Int64[Tensor, " n"],
) -> UInt8[Tensor, "n 3 p"]:
    """A picture of the ``reflected`` light, exposed for its median brightness.

    Args:
        glow: how bright glass is, whatever the exposure; 0 for all other surfaces.
        keys: of the noise.
    """
    _, n, pixels = reflected.shape
    middle = reflected[1, :, ::13].median(1).values.clamp_(min=1e-3)
    gain = (draws.uniform(0.14, 0.36) / middle)[:, None]
    tint = draws.uniform(0.88, 1.12, 3).T[..., None]
    shown = reflected * torch.where(glow > 0, glow, gain) * tint
    grain = noise(keys, 3 * pixels).view(n, 3, pixels) * draws.uniform(0.01, 0.09, 1, 1)
    values = rearrange(shown.clamp_(0, 1).sqrt_().mul_(255), "rgb n p -> n rgb p")
    return values.add(grain).clamp_(0, 255).round_().byte()


def _arriving(points: Tensor, normals: Tensor, lamps: Lamps, which: int) -> Tensor:
    way = lamps.place[:, which].T[..., None] - points
    square = dot(way, way)
    falloff = square.sqrt().mul_(square + 0.3)
    return dot(way, normals).clamp_(min=0).div_(falloff).mul_(lamps.power[:, which, None])


def _open(points: Tensor, normals: Tensor, extent: Tensor) -> Tensor:
    """(n, p): the share of light that corners leave."""
    x, y, z = points
    width, breadth, height = extent.T[..., None]
    distance = torch.stack(
        (width / 2 - x.abs(), breadth / 2 - y.abs(), torch.minimum(z, height - z))
    )
    close = (1 - distance / _CORNER).clamp_(min=0).square_() * (1 - normals * normals)
    x_share, y_share, z_share = (1 - 0.35 * close).unbind(0)
    return x_share * y_share * z_share
