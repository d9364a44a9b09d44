"""Dressed bodies: the parts that make up the picture of a person, with thickness and colours."""

from typing import NamedTuple

import torch
from torch import Tensor

from lincon.shapes import Float
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.pose.data.anatomy import Body

_SKIN = torch.tensor(
    [(250, 214, 188), (232, 186, 150), (205, 150, 110), (160, 108, 72), (116, 74, 50), (78, 50, 36)]
)
_HAIR = torch.tensor(
    [(24, 20, 20), (60, 38, 24), (110, 72, 36), (206, 168, 96), (150, 60, 30), (170, 170, 172)]
)


class Parts(NamedTuple):
    """k tapered capsules in space for each of n people: `drawing.Capsules` before the camera.

    start, end, radii: in statures.
    colours: from 0 to 1.
    change, rim: as in `drawing.Capsules`.
    lift: is added to their depth.
    """

    start: Float[Tensor, "n k 3"]
    end: Float[Tensor, "n k 3"]
    radii: Float[Tensor, "n k 2"]
    colours: Float[Tensor, "n k 2 3"]
    change: Float[Tensor, "n k"]
    rim: Float[Tensor, "n k"]
    lift: Float[Tensor, "n k"]


NAMES = (
    *("right shoe", "left shoe", "right shin", "left shin", "right thigh", "left thigh"),
    *("right flank", "left flank", "belly", "shoulders", "neck"),
    *("right upper arm", "left upper arm", "right forearm", "left forearm"),
    *("right hand", "left hand"),
    *("head", "hair", "fringe", "right eye", "left eye", "nose", "bag", "strap", "watch"),
)
"""Names of the parts of `dressed`, in order."""


def dressed(body: Body, draws: KeyedRandom) -> Parts:
    """Each body in shirt, trousers and shoes, with hair and face.

    Some have a bag at the right hip or a watch at the left wrist.
    """
    skin = (_SKIN[draws.index(len(_SKIN))] / 255 * draws.uniform(0.92, 1.08, 1)).clamp(max=1)
    hair = _HAIR[draws.index(len(_HAIR))] / 255 * draws.uniform(0.8, 1.2, 1)
    shirt, trousers, shoes, bag, watch = draws.uniform(0.05, 0.95, 5, 3).unbind(1)
    parts = [
        *_legs(body, skin, trousers, shoes, draws.uniform(0.3, 2.6)),
        *_trunk(body, shirt, skin),
        *_arms(body, skin, shirt, draws.uniform(0.1, 2.6)),
        *_head(body, skin, hair),
        *_bag(body, bag, draws.happens(0.4)),
        _watch(body, watch, draws.happens(0.4)),
    ]
    return Parts(*(torch.cat(each, 1) for each in zip(*parts, strict=True)))


def _part(
    start: Tensor,
    end: Tensor,
    radii: tuple[Tensor, Tensor],
    colour: Tensor,
    rim: float = 0.35,
    lift: float = 0,
) -> Parts:
    """Parts of one colour.

    Args:
        start, end: (n, k, 3) or (n, 3).
        radii: at start and end, (n,) each.
        colour: (n, 3).
    """
    start, end = (points if points.ndim == 3 else points[:, None] for points in (start, end))
    n, k, _ = start.shape
    colours = colour[:, None, None].expand(n, k, 2, 3)
    thickness = torch.stack(radii, 1)[:, None].expand(n, k, 2)
    rims, lifts = torch.full((n, k), rim), torch.full((n, k), lift)
    return Parts(start, end, thickness, colours, torch.ones(n, k), rims, lifts)


def _sleeved(part: Parts, cloth: Tensor, length: Tensor) -> Parts:
    """The part under cloth of colour (n, 3), from its start over ``length`` (n,) of it.

    It is bare at a length of 0 or less, and covered at 1 or more.
    """
    is_bare, is_covered = (length <= 0)[:, None, None], (length >= 1)[:, None, None]
    near = torch.where(is_bare, part.colours[:, :, 0], cloth[:, None])
    far = torch.where(is_covered, cloth[:, None], part.colours[:, :, 1])
    change = length.clamp(0, 1)[:, None].expand_as(part.change)
    return part._replace(colours=torch.stack((near, far), 2), change=change)


def _legs(body: Body, skin: Tensor, trousers: Tensor, shoes: Tensor, length: Tensor) -> list[Parts]:
    ankles, knees, hips = (body.joints[:, pair] for pair in ([0, 5], [1, 4], [2, 3]))
    hip, knee, ankle = (body.girth * radius for radius in (0.055, 0.038, 0.026))
    return [
        _part(ankles, body.toes, (ankle, 0.7 * ankle), shoes),
        _sleeved(_part(knees, ankles, (knee, ankle), skin), trousers, length - 1),
        _sleeved(_part(hips, knees, (hip, knee), skin), trousers, length),
    ]


def _trunk(body: Body, shirt: Tensor, skin: Tensor) -> list[Parts]:
    hips, shoulders = body.joints[:, [2, 3]], body.joints[:, [12, 13]]
    pelvis, thorax, neck = body.joints[:, 6], body.joints[:, 7], body.joints[:, 8]
    flank, belly, waist, throat = (body.girth * radius for radius in (0.042, 0.068, 0.048, 0.03))
    upper = shoulders + (thorax[:, None] - shoulders) * 0.3
    return [
        _part(upper, hips, (flank, waist), shirt, rim=0.1),
        _part(pelvis, thorax + body.chest[..., 1] * 0.04, (waist, belly), shirt, rim=0, lift=0.01),
        _part(upper[:, 0], upper[:, 1], (flank, flank), shirt, rim=0, lift=0.01),
        _part(thorax, neck, (throat, throat), skin, lift=0.02),
    ]


def _arms(body: Body, skin: Tensor, shirt: Tensor, length: Tensor) -> list[Parts]:
    wrists, elbows, shoulders = (body.joints[:, pair] for pair in ([10, 15], [11, 14], [12, 13]))
    shoulder, elbow, wrist, hand = (body.girth * radius for radius in (0.037, 0.029, 0.021, 0.024))
    return [
        _sleeved(_part(shoulders, elbows, (shoulder, elbow), skin), shirt, length),
        _sleeved(_part(elbows, wrists, (elbow, wrist), skin), shirt, length - 1),
        _part(wrists, body.hands, (hand, 0.8 * hand), skin, lift=0.003),
    ]


def _head(body: Body, skin: Tensor, hair: Tensor) -> list[Parts]:
    """A skull in a cap of hair that leaves the face free. Depth hides its far side."""
    neck, top, radius = body.joints[:, 8], body.joints[:, 9], body.skull
    left, down, front = body.head.unbind(-1)
    broad = radius[:, None]
    crown, jaw = top + down * broad, neck - down * (0.75 * broad)
    between_eyes = crown + down * 0.012 + front * (0.65 * broad)
    eyes = between_eyes[:, None] + left[:, None] * torch.tensor([[-0.022], [0.022]])
    nose = crown + down * 0.022 + front * (0.95 * broad)
    nape = crown + down * 0.045 - front * (0.4 * broad)
    fringe = crown - down * (0.62 * broad) + front * (0.5 * broad)
    half_fringe, thick = left * 0.02, 0.35 * radius
    eye = torch.full_like(radius, 0.009)
    return [
        _part(crown + down * 0.006, jaw, (0.94 * radius, 0.78 * radius), skin, rim=0.2),
        _part(crown - front * (0.22 * broad), nape, (radius, 0.8 * radius), hair),
        _part(fringe - half_fringe, fringe + half_fringe, (thick, thick), hair, rim=0),
        _part(eyes, eyes, (eye, eye), hair * 0.3, rim=0, lift=-0.01),
        _part(nose, nose + down * 0.016, (0.8 * eye, 0.9 * eye), skin * 0.72, rim=0),
    ]


def _bag(body: Body, colour: Tensor, worn: Tensor) -> list[Parts]:
    """A bag at the right hip, its strap over the left shoulder."""
    hip, shoulder = body.joints[:, 2], body.joints[:, 13]
    outward = body.pelvis[..., 0] * -0.045
    lower, front = hip + outward, body.chest[..., 2] * (0.06 * body.girth[:, None])
    size, thin = torch.where(worn, 0.05, 0.001), torch.where(worn, 0.011, 0.001)
    inner = shoulder + (body.joints[:, 7] - shoulder) * 0.4
    return [
        _part(lower, lower + body.pelvis[..., 1] * 0.04, (size, size), colour, lift=0.01),
        _part(inner + front, hip + front, (thin, thin), colour * 0.7, rim=0),
    ]


def _watch(body: Body, colour: Tensor, worn: Tensor) -> Parts:
    wrist, elbow = body.joints[:, 15], body.joints[:, 14]
    size = torch.where(worn, 0.03 * body.girth, 0.001)
    arm = elbow - wrist
    radii = size, size
    return _part(wrist + arm * 0.22, wrist + arm * 0.3, radii, colour, rim=0, lift=0.004)
