"""Rooms, a camera in each, and furniture that does not overlap."""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from lincon.shapes import Bool, Float, Int64
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.experiments.data.rotations import compose, rotation
from lincon.tasks.indoor.data.furniture import KINDS
from lincon.tasks.indoor.data.geometry import Boxes, Camera

HUNG, STANDING = 6, 14
"""Most pieces in a room: on its walls, and on its floor."""

OWN = 3
"""Materials of a room itself; two for each piece follow."""

_BERTH = 0.4  # metres between the camera and everything else
_NAMES = list(KINDS)
_HUNG = torch.tensor([_NAMES.index(name) for name in ("window", "picture", "picture", "door")])
_COMMON = (
    *("cupboard", "cupboard", "shelf", "bed", "sofa"),
    *("table", "table", "chair", "chair", "box"),
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
_FOOT = torch.tensor([0.5, 0.5, 1])  # shares are of half the width and depth, and of the height


class Pieces(NamedTuple):
    """k pieces in each of n rooms, the hung ones first.

    kind: number in `KINDS`.
    centre: the middle of its foot.
    size: width, depth and height.
    turn: cosine and sine of the angle by which it is turned.
    """

    kind: Int64[Tensor, "n k"]
    present: Bool[Tensor, "n k"]
    centre: Float[Tensor, "n k 3"]
    size: Float[Tensor, "n k 3"]
    turn: Float[Tensor, "n k 2"]

    @property
    def glazed(self) -> Bool[Tensor, "n k"]:
        """Whether the second material is glass."""
        return self.kind == _NAMES.index("window")

    def boxes(self) -> Boxes:
        """The boxes of all pieces that are present."""
        room, place = self.present.nonzero().unbind(1)
        kind = self.kind[room, place]
        count = _COUNT[kind]
        piece = torch.arange(len(kind)).repeat_interleave(count)
        offset = torch.arange(len(piece)) - (count.cumsum(0) - count)[piece]
        return self._placed(room[piece], place[piece], _FIRST[kind[piece]] + offset)

    def casters(self) -> tuple[Boxes, Bool[Tensor, "n standing"]]:
        """The boxes that throw shadows, the first of each standing piece, and which are present."""
        n, standing = len(self.kind), torch.arange(HUNG, HUNG + STANDING)
        room, place = torch.arange(n).repeat_interleave(STANDING), standing.repeat(n)
        return self._placed(room, place, _FIRST[self.kind[room, place]]), self.present[:, HUNG:]

    def _placed(self, room: Tensor, place: Tensor, box: Tensor) -> Boxes:
        """Boxes of the pieces at ``place``, by their number among the boxes of all kinds."""
        centre, size, turn = (part[room, place] for part in (self.centre, self.size, self.turn))
        share, metres = _ENDS[box].unbind(-1)
        low, high = (share * (size * _FOOT)[..., None] + metres).unbind(-1)
        (x, y, z), (cosine, sine) = ((low + high) / 2).T, turn.T
        middle = centre + torch.stack((cosine * x - sine * y, cosine * y + sine * x, z), 1)
        return Boxes(room, middle, (high - low) / 2, turn, OWN + 2 * place + _MATERIAL[box])


def rooms(draws: KeyedRandom, size: int) -> tuple[Float[Tensor, "n 3"], Camera, Pieces]:
    """Sizes of rooms in metres, a camera in each for pictures of ``size`` pixels, and furniture."""
    extent = torch.cat((draws.uniform(2.5, 8, 2), draws.uniform(2.3, 3.2, 1)), 1)
    camera = _camera(draws, extent, size)
    return extent, camera, _furnished(draws, extent, camera.place)


def _camera(draws: KeyedRandom, extent: Tensor, size: int) -> Camera:
    """A camera anywhere, though rather with the larger part of the room in front of it."""
    yaw, pitch, roll = draws.uniform(0, 360), draws.uniform(-16, 8), draws.uniform(-4, 4)
    turned = compose(compose(rotation(1, yaw), rotation(0, pitch)), rotation(2, roll))
    frame = torch.stack((turned[:, 0], turned[:, 2], -turned[:, 1]), 1)
    share = (draws.uniform(-1, 1, 2) - 0.8 * frame[:, :2, 2]).clamp(-1, 1)
    place = torch.cat((share * (extent[:, :2] / 2 - _BERTH), draws.uniform(1, 1.8, 1)), 1)
    half = rotation(2, draws.uniform(45, 75) / 2)  # of the field of view
    return Camera(place, frame, size / 2 * half[:, 0, 0] / half[:, 0, 1])


def _furnished(draws: KeyedRandom, extent: Tensor, camera: Tensor) -> Pieces:
    k = HUNG + STANDING
    hung = _HUNG[draws.index(len(_HUNG), HUNG)]
    standing = _STANDING[draws.index(len(_STANDING), STANDING)]
    kind = torch.cat((hung, standing), 1)
    at_wall = _AT_WALL[kind]
    measures = _LEAST[kind] + (_MOST - _LEAST)[kind] * draws.uniform(0, 1, k, 4)
    size, above = measures[..., :3], measures[..., 3:]
    straight = at_wall | draws.happens(0.4, k)
    angle = torch.where(straight, draws.index(4, k) * 90, draws.uniform(0, 360, k))
    turn = rotation(2, angle)[..., :2, 0]
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
    present = _apart(draws.happens(0.85, k) & fits & aside.any(-1), low, high)
    return Pieces(kind, present, centre, size, turn)


def _apart(
    wanted: Bool[Tensor, "n k"], low: Float[Tensor, "n k 3"], high: Float[Tensor, "n k 3"]
) -> Bool[Tensor, "n k"]:
    """The wanted pieces that do not overlap with an earlier one, by their lower and upper ends."""
    overlap = ((low[:, :, None] < high[:, None]) & (low[:, None] < high[:, :, None])).all(-1)
    present = torch.zeros_like(wanted)
    for piece in range(wanted.shape[1]):
        present[:, piece] = wanted[:, piece] & ~(overlap[:, piece] & present).any(1)
    return present
