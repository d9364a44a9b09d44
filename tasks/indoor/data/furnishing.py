"""Rooms, a camera in each, and furniture around it that overlaps with nothing."""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from lincon.tasks.experiments.data.keyed_random import Draws
from lincon.tasks.experiments.data.rotations import compose, rotation
from lincon.tasks.indoor.data.furniture import KINDS
from lincon.tasks.indoor.data.geometry import Boxes, Camera

HUNG, STANDING = 6, 14
"""Pieces in a room at most: on its walls, and on its floor."""

OWN = 3
"""Materials of a room itself; two for each piece follow."""

_BERTH = 0.4  # metres between the camera and everything else
_NAMES = list(KINDS)
_HUNG = torch.tensor([_NAMES.index(name) for name in ("window", "picture", "picture", "door")])
_COMMON = (
    "cupboard",
    "cupboard",
    "shelf",
    "bed",
    "sofa",
    "table",
    "table",
    "chair",
    "chair",
    "box",
)
_STANDING = torch.tensor([_NAMES.index(name) for name in _COMMON])

_LEAST, _MOST = (torch.tensor([kind[end] for kind in KINDS.values()]) for end in range(2))
_AT_WALL = torch.tensor([kind.at_wall for kind in KINDS.values()])
_COUNT = torch.tensor([len(kind.boxes) for kind in KINDS.values()])
_FIRST = torch.tensor(list(accumulate(_COUNT.tolist(), initial=0)))
_ENDS = torch.tensor(
    [box[:3] for kind in KINDS.values() for box in kind.boxes]
)  # (box, axis, end, share and metres)
_MATERIAL = torch.tensor([box.material for kind in KINDS.values() for box in kind.boxes])
_FOOT = torch.tensor([0.5, 0.5, 1])  # of a size: what shares are of


class Pieces(NamedTuple):
    """k pieces in each of n rooms, the hung ones first.

    kind: (n, k), int64: which of `KINDS`.
    present: (n, k), bool.
    centre: (n, k, 3): the middle of its foot.
    size: (n, k, 3): width, depth and height.
    turn: (n, k, 2): cosine and sine of the angle by which it is turned.
    """

    kind: Tensor
    present: Tensor
    centre: Tensor
    size: Tensor
    turn: Tensor

    @property
    def glazed(self) -> Tensor:
        """(n, k), bool."""
        return self.kind == _NAMES.index("window")

    def boxes(self) -> Boxes:
        """Those of all pieces that are present."""
        room, place = self.present.nonzero().unbind(1)
        kind = self.kind[room, place]
        count = _COUNT[kind]
        piece = torch.arange(len(kind)).repeat_interleave(count)
        offset = torch.arange(len(piece)) - (count.cumsum(0) - count)[piece]
        return self._made(room[piece], place[piece], _FIRST[kind[piece]] + offset)

    def casters(self) -> tuple[Boxes, Tensor]:
        """The first box of each piece that stands, and (n, k) which are present: all that throws shadows."""
        n, standing = len(self.kind), torch.arange(HUNG, HUNG + STANDING)
        room, place = torch.arange(n).repeat_interleave(STANDING), standing.repeat(n)
        return self._made(room, place, _FIRST[self.kind[room, place]]), self.present[:, HUNG:]

    def _made(self, room: Tensor, place: Tensor, box: Tensor) -> Boxes:
        centre, size, turn = (of[room, place] for of in (self.centre, self.size, self.turn))
        share, metres = _ENDS[box].unbind(-1)
        low, high = (share * (size * _FOOT)[..., None] + metres).unbind(-1)
        (x, y, z), (cosine, sine) = ((low + high) / 2).T, turn.T
        middle = centre + torch.stack((cosine * x - sine * y, cosine * y + sine * x, z), 1)
        return Boxes(room, middle, (high - low) / 2, turn, OWN + 2 * place + _MATERIAL[box])


def rooms(draws: Draws, size: int) -> tuple[Tensor, Camera, Pieces]:
    """Sizes (n, 3) in metres, a camera in each for pictures of ``size`` pixels, and the pieces around it."""
    extent = torch.cat((draws.uniform(2.5, 8, 2), draws.uniform(2.3, 3.2, 1)), 1)
    camera = _camera(draws, extent, size)
    return extent, camera, _furnished(draws, extent, camera.place)


def _camera(draws: Draws, extent: Tensor, size: int) -> Camera:
    """Anywhere, but rather with the larger part of the room before it."""
    yaw, pitch, roll = draws.uniform(0, 360), draws.uniform(-16, 8), draws.uniform(-4, 4)
    turned = compose(compose(rotation(1, yaw), rotation(0, pitch)), rotation(2, roll))
    frame = torch.stack((turned[:, 0], turned[:, 2], -turned[:, 1]), 1)
    share = (draws.uniform(-1, 1, 2) - 0.8 * frame[:, :2, 2]).clamp(-1, 1)
    place = torch.cat((share * (extent[:, :2] / 2 - _BERTH), draws.uniform(1, 1.8, 1)), 1)
    half = rotation(2, draws.uniform(45, 75) / 2)  # of the field of view
    return Camera(place, frame, size / 2 * half[:, 0, 0] / half[:, 0, 1])


def _furnished(draws: Draws, extent: Tensor, camera: Tensor) -> Pieces:
    k = HUNG + STANDING
    kind = torch.cat(
        (_HUNG[draws.index(len(_HUNG), HUNG)], _STANDING[draws.index(len(_STANDING), STANDING)]), 1
    )
    at_wall = _AT_WALL[kind]
    size, above = (_LEAST[kind] + (_MOST - _LEAST)[kind] * draws.uniform(0, 1, k, 4)).split(
        (3, 1), -1
    )
    straight = at_wall | draws.happens(0.4, k)
    turn = rotation(2, torch.where(straight, draws.index(4, k) * 90, draws.uniform(0, 360, k)))[
        ..., :2, 0
    ]
    back = turn.flip(-1) * torch.tensor([-1, 1])
    foot = turn.abs() * size[..., :1] + back.abs() * size[..., 1:2]
    bounds = torch.cat((foot, size[..., 2:]), -1)
    free = extent[:, None] - bounds
    share = torch.where(at_wall[..., None] & (back.abs() > 0.5), back, draws.uniform(-1, 1, k, 2))
    centre = torch.cat((free[..., :2] / 2 * share, above), -1)
    low = torch.cat((centre[..., :2] - foot / 2, above), -1)
    high = low + bounds
    berth = camera[:, None, :2]
    aside = (low[..., :2] > berth + _BERTH) | (high[..., :2] < berth - _BERTH)
    fits = (free > 0.08).all(-1) & (high[..., 2] < extent[:, None, 2])
    kept = _kept(draws.happens(0.85, k) & fits & aside.any(-1), low, high)
    return Pieces(kind, kept, centre, size, turn)


def _kept(wanted: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(n, k), bool: those wanted that overlap with none kept before; (n, k, 3) is where they begin and end."""
    overlap = ((low[:, :, None] < high[:, None]) & (low[:, None] < high[:, :, None])).all(-1)
    kept = torch.zeros_like(wanted)
    for each in range(wanted.shape[1]):
        kept[:, each] = wanted[:, each] & ~(overlap[:, each] & kept).any(1)
    return kept
