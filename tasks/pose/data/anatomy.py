"""A human body as a kinematic tree: sizes of bones, plausible angles, and places of the joints.

Lengths are in statures. Space is the camera's: x to the right of the picture, y down, z to the
viewer; a body that faces the viewer has its left at +x.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lincon.shapes import Float
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.experiments.data.rotations import compose, rotation

_SIDES = torch.tensor([-1.0, 1.0])  # right, left

# Ranges in degrees: outward, forward, turned inward, elbow bent.
_ARMS = torch.tensor(
    [
        [(3, 18), (-15, 15), (-10, 40), (0, 35)],  # hanging
        [(3, 12), (-45, 45), (0, 30), (10, 70)],  # swinging
        [(35, 55), (-25, 0), (60, 90), (80, 110)],  # hand on the hip
        [(0, 15), (20, 45), (50, 80), (85, 120)],  # crossed over the body
        [(-10, 25), (65, 105), (-20, 20), (0, 30)],  # pointing ahead
        [(70, 110), (-10, 30), (-90, 90), (0, 40)],  # stretched to the side
        [(75, 120), (-10, 20), (-120, -60), (35, 115)],  # waving
        [(140, 175), (0, 30), (-60, 60), (0, 70)],  # overhead
        [(15, 60), (30, 65), (20, 50), (115, 145)],  # hand at the head
    ],
    dtype=torch.float32,
)

_STRAIGHT = [(0, 8), (-5, 8), (-25, 5), (0, 10)]
# Ranges in degrees, for one leg and the other: outward, forward, turned inward, knee bent.
_LEGS = torch.tensor(
    [
        [_STRAIGHT, _STRAIGHT],  # standing
        [[(12, 28), (-5, 15), (-25, 5), (0, 20)]] * 2,  # legs apart
        [[(0, 6), (12, 38), (-10, 5), (3, 20)], [(0, 6), (-28, -8), (-10, 5), (8, 50)]],  # walking
        [[(0, 10), (55, 85), (-10, 5), (55, 95)], [(0, 10), (-25, 0), (-10, 5), (25, 85)]],  # lunge
        [[(0, 25), (35, 95), (-15, 10), (0, 100)], _STRAIGHT],  # one leg raised
        [[(5, 25), (70, 115), (-20, 0), (90, 135)]] * 2,  # crouching
        [[(2, 15), (70, 95), (-10, 5), (65, 100)]] * 2,  # sitting
    ],
    dtype=torch.float32,
)
_LEAN = torch.tensor(
    [(-4, 8), (-8, 15), (-3, 12), (-5, 25), (-15, 20), (15, 45), (-10, 20)], dtype=torch.float32
)


class Body(NamedTuple):
    """Bodies in space.

    joints: in the order of `skeleton.JOINTS`.
    hands, toes: the tips of right and left.
    pelvis, chest, head: frames whose columns are the body's left, down and front.
    girth: how thick the body is, around 1.
    skull: radius of the head.
    """

    joints: Float[Tensor, "n 16 3"]
    hands: Float[Tensor, "n 2 3"]
    toes: Float[Tensor, "n 2 3"]
    pelvis: Float[Tensor, "n 3 3"]
    chest: Float[Tensor, "n 3 3"]
    head: Float[Tensor, "n 3 3"]
    girth: Float[Tensor, " n"]
    skull: Float[Tensor, " n"]


LENGTHS = {
    "thigh": 0.245,
    "shin": 0.245,
    "foot": 0.1,
    "hip": 0.055,
    "spine": 0.285,
    "shoulder": 0.115,
    "neck": 0.05,
    "head": 0.15,
    "upper arm": 0.17,
    "forearm": 0.15,
    "hand": 0.06,
}
"""Lengths of an average body; hip and shoulder are measured from the middle."""

VARIATION = 0.08
"""Lengths of a body differ from the average by up to this share."""


def bodies(draws: KeyedRandom) -> Body:
    """One body for each key, turned any way to the camera, its pelvis at the origin."""
    factors = draws.uniform(1 - VARIATION, 1 + VARIATION, len(LENGTHS)).unbind(1)
    lengths = {name: LENGTHS[name] * factor for name, factor in zip(LENGTHS, factors, strict=True)}
    kind, other = draws.index(len(_LEGS)), draws.index(len(_LEGS))
    kind = torch.where(draws.happens(0.3), kind % 3, other)  # upright more often than not
    pelvis = _turned(draws.uniform(0, 360), draws.uniform(-8, 18), draws.uniform(-10, 10))
    lean = _within(_LEAN[kind], draws.uniform(0, 1))
    chest = compose(pelvis, _turned(draws.uniform(-20, 20), -lean, draws.uniform(-12, 12)))
    head = compose(
        chest, _turned(draws.uniform(-50, 50), draws.uniform(-25, 15), draws.uniform(-12, 12))
    )

    origin = torch.zeros_like(pelvis[..., 0])
    hips = _beside(origin, pelvis, lengths["hip"])
    thorax = _along(origin, chest, -lengths["spine"])
    shoulders = _beside(thorax, chest, lengths["shoulder"])
    neck = _along(thorax, chest, -lengths["neck"])
    top = _along(neck, head, -lengths["head"])
    elbows, wrists, hands = _arms(draws, shoulders, chest, lengths)
    knees, ankles, toes = _legs(draws, kind, hips, pelvis, lengths)

    middle = torch.stack((origin, thorax, neck, top), 1)
    right_leg, left_leg = torch.stack((ankles, knees, hips), 1).unbind(2)
    right_arm, left_arm = torch.stack((wrists, elbows, shoulders), 1).unbind(2)
    joints = torch.cat((right_leg, left_leg.flip(1), middle, right_arm, left_arm.flip(1)), 1)
    skull = draws.uniform(0.05, 0.06)
    return Body(joints, hands, toes, pelvis, chest, head, draws.uniform(0.8, 1.3), skull)


def _arms(
    draws: KeyedRandom, shoulders: Tensor, chest: Tensor, lengths: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Elbows, wrists and tips of the hands, (n, 2, 3) each."""
    kinds = draws.index(len(_ARMS), 2)
    kinds[:, 1] = torch.where(draws.happens(0.3), kinds[:, 0], kinds[:, 1])
    outward, forward, inward, bend = _within(_ARMS[kinds], draws.uniform(0, 1, 2, 4)).unbind(-1)
    upper = compose(chest[:, None], _limb(outward, forward, inward))
    lower = compose(upper, rotation(0, bend))
    elbows = _along(shoulders, upper, lengths["upper arm"][:, None])
    wrists = _along(elbows, lower, lengths["forearm"][:, None])
    return elbows, wrists, _along(wrists, lower, lengths["hand"][:, None])


def _legs(
    draws: KeyedRandom, kind: Tensor, hips: Tensor, pelvis: Tensor, lengths: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Knees, ankles and tips of the feet, (n, 2, 3) each."""
    ranges = _LEGS[kind]
    ranges = torch.where(draws.happens(0.5)[:, None, None, None], ranges, ranges.flip(1))
    outward, forward, inward, bend = _within(ranges, draws.uniform(0, 1, 2, 4)).unbind(-1)
    upper = compose(pelvis[:, None], _limb(outward, forward, inward))
    lower = compose(upper, rotation(0, -bend))
    knees = _along(hips, upper, lengths["thigh"][:, None])
    ankles = _along(knees, lower, lengths["shin"][:, None])
    heels = _along(ankles, lower, 0.025)
    return knees, ankles, heels + lower[..., 2] * lengths["foot"][:, None, None]


def _turned(about: Tensor, nod: Tensor, tilt: Tensor) -> Tensor:
    return compose(compose(rotation(2, tilt), rotation(0, nod)), rotation(1, about))


def _limb(outward: Tensor, forward: Tensor, inward: Tensor) -> Tensor:
    """Frames (n, 2, 3, 3) of right and left limb in the trunk's, from angles (n, 2)."""
    raised = compose(rotation(0, forward), rotation(2, outward * _SIDES))
    return compose(raised, rotation(1, -inward * _SIDES))


def _along(start: Tensor, frame: Tensor, length: Tensor | float) -> Tensor:
    """``start`` moved down by ``length`` in ``frame``."""
    length = length[..., None] if isinstance(length, Tensor) else length
    return start + frame[..., 1] * length


def _beside(middle: Tensor, frame: Tensor, length: Tensor) -> Tensor:
    """(n, 2, 3): the points right and left of ``middle``."""
    return middle[:, None] + (frame[..., 0] * length[:, None])[:, None] * _SIDES[:, None]


def _within(ranges: Tensor, share: Tensor) -> Tensor:
    return ranges[..., 0] + (ranges[..., 1] - ranges[..., 0]) * share
