"""Bodies dressed: the parts of which a person is drawn, with their thickness and colours."""

from typing import NamedTuple

import torch
from torch import Tensor

from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.pose.data.anatomy import Body

_SKIN = torch.tensor(
    [(250, 214, 188), (232, 186, 150), (205, 150, 110), (160, 108, 72), (116, 74, 50), (78, 50, 36)]
)
_HAIR = torch.tensor(
    [(24, 20, 20), (60, 38, 24), (110, 72, 36), (206, 168, 96), (150, 60, 30), (170, 170, 172)]
)


class Parts(NamedTuple):
    """k tapered capsules in space for each of n people: as `drawing.Capsules`, before they are seen by a camera.

    start, end: (n, k, 3), in statures.
    radii: (n, k, 2), in statures.
    colours: (n, k, 2, 3), from 0 to 1.
    change, rim: (n, k).
    lift: (n, k), added to their depth.
    """

    start: Tensor
    end: Tensor
    radii: Tensor
    colours: Tensor
    change: Tensor
    rim: Tensor
    lift: Tensor


NAMES = (
    *("right shoe", "left shoe", "right shin", "left shin", "right thigh", "left thigh"),
    *("right flank", "left flank", "belly", "shoulders", "neck"),
    *(
        "right upper arm",
        "left upper arm",
        "right forearm",
        "left forearm",
        "right hand",
        "left hand",
    ),
    *("head", "hair", "fringe", "right eye", "left eye", "nose", "bag", "strap", "watch"),
)
"""What the parts of `dressed` are, in order."""


def dressed(body: Body, draws: KeyedRandom) -> Parts:
    """Each body in shirt, trousers and shoes, with hair and face; on some a bag at the right or a watch at the left."""
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
    """Parts of one colour (n, 3) from points ``start`` to points ``end``, (n, k, 3) or (n, 3), of radii (n,) each."""
    start, end = (points if points.ndim == 3 else points[:, None] for points in (start, end))
    n, k, _ = start.shape
    colours = colour[:, None, None].expand(n, k, 2, 3)
    thickness = torch.stack(radii, 1)[:, None].expand(n, k, 2)
    return Parts(
        start,
        end,
        thickness,
        colours,
        torch.ones(n, k),
        torch.full((n, k), rim),
        torch.full((n, k), lift),
    )


def _sleeved(part: Parts, cloth: Tensor, length: Tensor) -> Parts:
    """The part under cloth (n, 3) from its start over ``length`` (n,) of it: bare below 0, covered above 1."""
    whole = (length >= 1)[:, None, None]
    near = torch.where((length <= 0)[:, None, None], part.colours[:, :, 0], cloth[:, None])
    far = torch.where(whole, cloth[:, None], part.colours[:, :, 1])
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
    """A skull in a cap of hair that leaves the face free; what is on its far side is hidden by its depth."""
    neck, top, radius = body.joints[:, 8], body.joints[:, 9], body.skull
    left, down, front = body.head.unbind(-1)
    broad = radius[:, None]
    crown, jaw = top + down * broad, neck - down * (0.75 * broad)
    eyes = (crown + down * 0.012 + front * (0.65 * broad))[:, None] + left[:, None] * torch.tensor(
        [[-0.022], [0.022]]
    )
    nose = crown + down * 0.022 + front * (0.95 * broad)
    nape = crown + down * 0.045 - front * (0.4 * broad)
    fringe = crown - down * (0.62 * broad) + front * (0.5 * broad)
    eye = torch.full_like(radius, 0.009)
    return [
        _part(crown + down * 0.006, jaw, (0.94 * radius, 0.78 * radius), skin, rim=0.2),
        _part(crown - front * (0.22 * broad), nape, (radius, 0.8 * radius), hair),
        _part(
            fringe - left * 0.02, fringe + left * 0.02, (0.35 * radius, 0.35 * radius), hair, rim=0
        ),
        _part(eyes, eyes, (eye, eye), hair * 0.3, rim=0, lift=-0.01),
        _part(nose, nose + down * 0.016, (0.8 * eye, 0.9 * eye), skin * 0.72, rim=0),
    ]


def _bag(body: Body, colour: Tensor, worn: Tensor) -> list[Parts]:
    """At the right hip, the strap over the left shoulder."""
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
    return _part(
        wrist + (elbow - wrist) * 0.22,
        wrist + (elbow - wrist) * 0.3,
        (size, size),
        colour,
        rim=0,
        lift=0.004,
    )
