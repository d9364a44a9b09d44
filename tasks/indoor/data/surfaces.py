"""How surfaces look close up: colours, and patterns whose size is in metres."""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from lincon.shapes import Bool, Float, Int64
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.indoor.data.furnishing import OWN
from lincon.tasks.indoor.data.geometry import Hits
from lincon.tasks.indoor.data.noise import CLOUDS, TONES

_ENDLESS = 1000.0
# A cell's width and height, in units of the pattern; the joints between cells, in metres; then
# shares: of the second colour in every other cell, of a cell by which each row is shifted, of tones
# that differ from cell to cell, and of clouds.
_PATTERNS = {
    "plain": (_ENDLESS, _ENDLESS, 0, 0, 0, 0, 0.1),
    "clouds": (_ENDLESS, _ENDLESS, 0, 0, 0, 0, 0.6),
    "stripes": (1, _ENDLESS, 0, 1, 0, 0, 0.06),
    "planks": (8, 0.7, 0.008, 0, 1, 0.5, 0.15),
    "tiles": (1.6, 1.6, 0.014, 0, 0, 0.15, 0.1),
    "bricks": (1.2, 0.4, 0.012, 0, 0.5, 0.3, 0.15),
    "checker": (1.4, 1.4, 0, 1, 0, 0, 0.06),
}
_TABLE = torch.tensor(list(_PATTERNS.values()))


def _choice(*names: str) -> Tensor:
    return torch.tensor([list(_PATTERNS).index(name) for name in names])


_FLOORS = _choice("plain", "clouds", "planks", "planks", "planks", "tiles", "tiles", "checker")
_CEILINGS = _choice("plain")
_WALLS = _choice("plain", "plain", "plain", "clouds", "stripes", "bricks")
_THINGS = _choice("plain", "plain", "plain", "clouds", "clouds", "stripes", "planks", "checker")
# Grey from and to, and how far colours are from it at most.
_FLOOR, _CEILING, _WALL, _THING = (
    (0.15, 0.6, 0.8),
    (0.7, 0.95, 0.1),
    (0.4, 0.9, 0.6),
    (0.1, 0.85, 1.6),
)


class Materials(NamedTuple):
    """Materials of surfaces, m in each of n rooms.

    colour, other: from 0 to 1.
    width, height, joint: of the pattern's cells, in metres.
    alternate, shift, tone, cloud: shares, as those of a pattern.
    salt: makes tones and clouds differ between materials.
    glow: how bright glass is; 0 for all other materials.
    """

    colour: Float[Tensor, "3 n m"]
    other: Float[Tensor, "3 n m"]
    width: Float[Tensor, "n m"]
    height: Float[Tensor, "n m"]
    joint: Float[Tensor, "n m"]
    alternate: Float[Tensor, "n m"]
    shift: Float[Tensor, "n m"]
    tone: Float[Tensor, "n m"]
    cloud: Float[Tensor, "n m"]
    salt: Float[Tensor, "n m"]
    glow: Float[Tensor, "n m"]

    def at(self, index: Int64[Tensor, "n p"]) -> "Materials":
        """The materials at ``index`` of each room."""
        n, m = self.width.shape
        place = (index + torch.arange(n)[:, None] * m).flatten()
        table = torch.cat((self.colour, self.other, torch.stack(self[2:]))).flatten(1)
        rows = rearrange(table.index_select(1, place), "value (n p) -> value n p", p=index.shape[1])
        return Materials(rows[:3], rows[3:6], *rows[6:])


def materials(draws: KeyedRandom, glazed: Bool[Tensor, "n k"]) -> Materials:
    """Materials, 3 + 2k a room, of floor, ceiling and walls and of k pieces.

    ``glazed``: pieces whose second material is glass.
    """
    things = 2 * glazed.shape[1]
    count = OWN + things
    glow = torch.zeros(len(glazed), count)
    glow[:, OWN + 1 :: 2] = glazed * draws.uniform(0.45, 1.3, 1)
    low, high, strong = torch.tensor([_FLOOR, _CEILING, _WALL, *[_THING] * things]).T[..., None]
    grey = low + (high - low) * draws.uniform(0, 1, count, 1)
    hue = draws.uniform(-0.5, 0.5, count, 3)
    warm = hue + torch.tensor([0.12, 0, -0.12])
    colour = (grey * (1 + strong * draws.uniform(0, 1, count, 1) * warm)).clamp(0.02, 1)
    other = colour * draws.uniform(0.4, 1, count, 1) + draws.uniform(0, 0.3, count, 3)
    other = other.clamp(0.02, 1)
    colour = torch.where(glow[..., None] > 0, 0.75 + 0.25 * colour, colour)
    choices = (_FLOORS, 1), (_CEILINGS, 1), (_WALLS, 1), (_THINGS, things)
    kinds = [patterns[draws.index(len(patterns), number)] for patterns, number in choices]
    pattern = _TABLE[torch.where(glow > 0, 0, torch.cat(kinds, 1))]
    cell, rest = pattern[..., :2], pattern[..., 2:]
    salt = draws.index(len(TONES), count)
    cell = cell * draws.uniform(0.12, 0.32, count, 1)
    numbers = torch.cat((cell, rest, torch.stack((salt, glow), -1)), -1)
    colour, other = (rearrange(part, "n m rgb -> rgb n m") for part in (colour, other))
    return Materials(colour, other, *numbers.unbind(-1))


def colours(
    hits: Hits, surface: Materials, footprint: Float[Tensor, "*#shape"]
) -> Float[Tensor, "3 n p"]:
    """The share of light that the surfaces reflect.

    ``footprint``: the length that a pixel covers, in metres; finer patterns blur.
    """
    width, height = surface.width, surface.height
    y = hits.along + height / 2
    row = (y / height).floor_()
    x = hits.across + width / 2 + surface.shift * width * _tone(row, 0, surface.salt)
    column = (x / width).floor_()
    x, y = x - column * width, y - row * height
    sharp = (torch.minimum(width, height) / footprint - 0.5).clamp_(0, 1)
    place = row + column
    odd = place - (place / 2).floor_() * 2
    second = ((odd - 0.5) * sharp + 0.5) * surface.alternate
    bright = 1 + surface.tone * sharp * (_tone(row, column, surface.salt) - 0.5)
    bright += surface.cloud * (_cloud(hits.across, hits.along, surface.salt) - 0.5)
    edge = torch.minimum(torch.minimum(x, width - x), torch.minimum(y, height - y))
    in_joint = ((surface.joint / 2 - edge) / footprint + 0.5).clamp_(0, 1)
    joint = in_joint * (surface.joint / footprint).clamp_(max=1)
    bright *= 1 - 0.55 * joint
    return (surface.colour + (surface.other - surface.colour) * second).mul_(bright)


def _tone(row: Tensor, column: Tensor | int, salt: Tensor) -> Tensor:
    """A random number from 0 to 1 for each cell."""
    place = row * 57 + column * 131 + salt
    return TONES.take(place.long().remainder_(len(TONES)))


def _cloud(across: Tensor, along: Tensor, salt: Tensor) -> Tensor:
    """A random number from 0 to 1, which changes within half a metre."""
    period = len(CLOUDS)
    x, y = ((metres * 40 + salt).floor_().long().remainder_(period) for metres in (across, along))
    return CLOUDS.take(y * period + x)
