"""Articulated figures of people, drawn when they are asked for: the data set that needs no file."""

from typing import NamedTuple

import torch
from torch import Tensor

from lincon.counter import bits, key
from lincon.tasks.experiments.data.keyed_random import Draws
from lincon.tasks.experiments.data.synthetic import Made
from lincon.tasks.pose.data.anatomy import Body, bodies
from lincon.tasks.pose.data.batch import Batch
from lincon.tasks.pose.data.clothing import Parts, dressed
from lincon.tasks.pose.data.drawing import Capsules, paint, paint_boxes
from lincon.tasks.pose.data.scenery import background, lit, obstacle
from lincon.tasks.pose.skeleton import JOINTS

_COMPANY = 0.4  # probability of each further person
_STREAM = 0x706F7365  # sets these keys apart from other uses of the same seed


class Figures(Made):
    """Pictures of people in all postures, seen from all sides, with every joint known.

    A picture is a function of seed, size, people and its index alone, bit for bit: ``figures[[3,
    1]]`` draws two. Left and right are told by face and toes, and sometimes by a bag at the right
    hip or a watch on the left arm. In a third of the pictures something stands in front. The first
    person's joints are nearly always inside the picture.

    Args:
        count: number of pictures; any, as none is drawn before it is asked for.
        seed: of all of them.
        size: height and width in pixels.
        people: in a picture at most; the first is always there, in the middle and before the
            others.

    Raises:
        LinconError: a count, a size or a number of people that is too small; an index that is out
            of range.
    """

    one, many, at_once = "Picture", "figures", 32

    def __init__(self, count: int, seed: int, size: int = 64, people: int = 2) -> None:
        super().__init__(count, seed, size)
        self._check_least("people", people, 1)
        self.people = people

    def make(self, indices: Tensor) -> Batch:
        scene, noise, *people = (
            bits(key(self.seed, _STREAM, stream), indices) for stream in range(2 + self.people)
        )
        draws = Draws(scene)
        canvas = background(draws, self.size)
        there = torch.cat(
            (torch.ones(len(indices), 1).bool(), draws.happens(_COMPANY, self.people - 1)), 1
        )
        crowd = [person(keys, self.size) for keys in people]
        for other in range(1, self.people):
            crowd[other] = _moved(crowd[other], crowd[0], draws, self.size)
        for each, present in reversed(list(zip(crowd, there.unbind(1), strict=True))):
            part = canvas[present]
            paint(part, Capsules(*(of[present] for of in each.capsules())))
            canvas[present] = part
        paint_boxes(canvas, obstacle(draws, self.size))
        joints = torch.stack([each.joints() for each in crowd], 1)
        known = there[:, :, None].expand(-1, -1, len(JOINTS)).contiguous()
        return Batch(
            lit(canvas, draws, noise), joints * known[..., None], known, crowd[0].head_size()
        )


class View(NamedTuple):
    """A camera in weak perspective, one for each of n people.

    distance: (n,), from the origin, in statures.
    scale: (n,), pixels of a stature at the origin.
    origin: (n, 2), where that is in the picture.
    """

    distance: Tensor
    scale: Tensor
    origin: Tensor

    def zoom(self, points: Tensor) -> Tensor:
        """(n, k, 3) -> (n, k): pixels of a stature there."""
        return self.scale[:, None] * (
            self.distance[:, None] / (self.distance[:, None] - points[..., 2])
        )

    def __call__(self, points: Tensor) -> Tensor:
        """(n, k, 3) -> (n, k, 2), pixels."""
        return points[..., :2] * self.zoom(points)[..., None] + self.origin[:, None]


class Person(NamedTuple):
    """A person for each of n pictures, and how it is seen there."""

    body: Body
    parts: Parts
    view: View

    def joints(self) -> Tensor:
        """(n, 16, 2), pixels."""
        return self.view(self.body.joints)

    def head_size(self) -> Tensor:
        """(n,), pixels: 0.6 x the diagonal of a box from upper neck to head top that is as wide as the skull."""
        ends = self.body.joints[:, 8:10]
        axis = self.view(ends).diff(dim=1)[:, 0]
        width = 2 * self.body.skull * self.view.zoom(ends)[:, 0]
        return 0.6 * (axis[:, 0] * axis[:, 0] + axis[:, 1] * axis[:, 1] + width * width).sqrt()

    def capsules(self) -> Capsules:
        """What is to be drawn."""
        parts, view = self.parts, self.view
        zoom = torch.stack((view.zoom(parts.start), view.zoom(parts.end)), 2)
        depth = (parts.start[..., 2] + parts.end[..., 2]) / 2 + parts.lift
        start, end = view(parts.start), view(parts.end)
        return Capsules(
            start, end, parts.radii * zoom, parts.colours, parts.change, parts.rim, depth
        )


def person(keys: Tensor, size: int) -> Person:
    """One for each of ``keys`` (n,), large in the middle of a picture of ``size`` pixels."""
    draws = Draws(keys)
    body = bodies(draws)
    view = View(draws.uniform(2.5, 6), torch.ones(len(keys)), torch.zeros(len(keys), 2))
    seen = view(torch.cat((body.joints, body.toes, body.hands), 1))
    low, high = seen.amin(1), seen.amax(1)
    scale = draws.uniform(0.55, 0.85) * size / (high - low).amax(1).clamp(min=0.75)
    middle = (size - 1) / 2 + draws.uniform(-0.05, 0.05, 2) * size
    view = view._replace(scale=scale, origin=middle - (low + high) / 2 * scale[:, None])
    return Person(body, dressed(body, draws), view)


def _moved(other: Person, first: Person, draws: Draws, size: int) -> Person:
    """Somebody else beside the first person or behind, of about the same size."""
    aside = torch.where(draws.happens(0.5), 1, -1) * draws.uniform(0.15, 0.5)
    step = torch.stack((aside, draws.uniform(-0.1, 0.06)), 1) * size
    scale = first.view.scale * draws.uniform(0.7, 1.05)
    return other._replace(view=other.view._replace(scale=scale, origin=first.view.origin + step))
