"""Articulated figures of people, which are drawn when they are asked for and need no file."""

from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor

from lincon.counter import bits, key
from lincon.shapes import Float, Int64
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.experiments.data.synthetic import Synthetic
from lincon.tasks.pose.data.anatomy import Body, bodies
from lincon.tasks.pose.data.batch import Batch
from lincon.tasks.pose.data.clothing import Parts, dressed
from lincon.tasks.pose.data.drawing import Capsules, paint, paint_boxes
from lincon.tasks.pose.data.scenery import background, lit, obstacle
from lincon.tasks.pose.skeleton import JOINTS

_COMPANY = 0.4  # probability of each further person
_STREAM = 0x706F7365  # sets these keys apart from other uses of the same seed


class Figures(Synthetic):
    """Pictures of people in all postures, seen from all sides, with every joint known.

    A picture depends on seed, size, people and its index alone, bit for bit: ``figures[[3, 1]]``
    draws two. Face and toes tell left from right, and sometimes a bag at the right hip or a watch
    on the left arm does. In a third of the pictures something stands in front. The first person's
    joints are nearly always inside the picture.

    Args:
        count: number of pictures; any number will do, as none is drawn before it is asked for.
        seed: of all of them.
        size: height and width in pixels.
        people: in a picture at most; the first is always present, in the middle and in front of
            the others.

    Raises:
        LinconError: a count, a size or a number of people that is too small; an index that is out
            of range.

    >>> batch = Figures(count=10, seed=0, size=32)[[3, 1]]
    >>> batch.images.shape, batch.joints.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 2, 16, 2]))
    """

    singular, plural, chunk = "Picture", "figures", 32

    def __init__(self, count: int, seed: int, size: int = 64, people: int = 2) -> None:
        super().__init__(count, seed, size)
        self._check_least("people", people, 1)
        self.people = people

    def make(self, indices: Tensor) -> Batch:
        scene, noise, *people = (
            bits(key(self.seed, _STREAM, stream), indices) for stream in range(2 + self.people)
        )
        draws = KeyedRandom(scene)
        canvas = background(draws, self.size)
        first = torch.ones(len(indices), 1, dtype=torch.bool)
        present = torch.cat((first, draws.happens(_COMPANY, self.people - 1)), 1)
        crowd = [person(keys, self.size) for keys in people]
        for other in range(1, self.people):
            crowd[other] = _moved(crowd[other], crowd[0], draws, self.size)
        for member, in_picture in reversed(list(zip(crowd, present.unbind(1), strict=True))):
            canvases = canvas[in_picture]
            paint(canvases, Capsules(*(field[in_picture] for field in member.capsules())))
            canvas[in_picture] = canvases
        paint_boxes(canvas, obstacle(draws, self.size))
        joints = torch.stack([member.joints() for member in crowd], 1)
        known = repeat(present, "n people -> n people joint", joint=len(JOINTS)).contiguous()
        joints = joints * known.unsqueeze(-1)
        return Batch(lit(canvas, draws, noise), joints, known, crowd[0].head_size())


class View(NamedTuple):
    """A camera in weak perspective, one for each of n people.

    distance: from the origin, in statures.
    scale: pixels of a stature at the origin.
    origin: the picture's point that shows the origin, in pixels.
    """

    distance: Float[Tensor, " n"]
    scale: Float[Tensor, " n"]
    origin: Float[Tensor, "n 2"]

    def zoom(self, points: Float[Tensor, "n k 3"]) -> Float[Tensor, "n k"]:
        """Pixels of a stature at each point."""
        distance = self.distance[:, None]
        return self.scale[:, None] * (distance / (distance - points[..., 2]))

    def __call__(self, points: Float[Tensor, "n k 3"]) -> Float[Tensor, "n k 2"]:
        """Where the picture shows each point, in pixels."""
        return points[..., :2] * self.zoom(points)[..., None] + self.origin[:, None]


class Person(NamedTuple):
    """A person for each of n pictures, and the camera that sees it."""

    body: Body
    parts: Parts
    view: View

    def joints(self) -> Float[Tensor, "n 16 2"]:
        """Pixels."""
        return self.view(self.body.joints)

    def head_size(self) -> Float[Tensor, " n"]:
        """Pixels: 0.6 x the diagonal of a box from upper neck to head top, as wide as the skull."""
        ends = self.body.joints[:, 8:10]
        axis = self.view(ends).diff(dim=1)[:, 0]
        width = 2 * self.body.skull * self.view.zoom(ends)[:, 0]
        return 0.6 * (axis[:, 0] * axis[:, 0] + axis[:, 1] * axis[:, 1] + width * width).sqrt()

    def capsules(self) -> Capsules:
        """The parts to be drawn."""
        parts, view = self.parts, self.view
        zoom = torch.stack((view.zoom(parts.start), view.zoom(parts.end)), 2)
        depth = (parts.start[..., 2] + parts.end[..., 2]) / 2 + parts.lift
        start, end = view(parts.start), view(parts.end)
        return Capsules(
            start, end, parts.radii * zoom, parts.colours, parts.change, parts.rim, depth
        )


def person(keys: Int64[Tensor, " n"], size: int) -> Person:
    """A person for each key, large in the middle of a picture of ``size`` pixels."""
    draws = KeyedRandom(keys)
    body = bodies(draws)
    view = View(draws.uniform(2.5, 6), torch.ones(len(keys)), torch.zeros(len(keys), 2))
    points = view(torch.cat((body.joints, body.toes, body.hands), 1))
    low, high = points.amin(1), points.amax(1)
    scale = draws.uniform(0.55, 0.85) * size / (high - low).amax(1).clamp(min=0.75)
    middle = (size - 1) / 2 + draws.uniform(-0.05, 0.05, 2) * size
    view = view._replace(scale=scale, origin=middle - (low + high) / 2 * scale[:, None])
    return Person(body, dressed(body, draws), view)


def _moved(other: Person, first: Person, draws: KeyedRandom, size: int) -> Person:
    """Another person moved beside or behind the first one, at about the same size."""
    aside = torch.where(draws.happens(0.5), 1, -1) * draws.uniform(0.15, 0.5)
    step = torch.stack((aside, draws.uniform(-0.1, 0.06)), 1) * size
    scale = first.view.scale * draws.uniform(0.7, 1.05)
    return other._replace(view=other.view._replace(scale=scale, origin=first.view.origin + step))
