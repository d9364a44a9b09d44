"""People in photos on disk; each is cut out and resampled when it is asked for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from lincon import LinconError
from lincon.errors import one_line
from lincon.shapes import UInt8
from lincon.tasks.experiments.data.pictures import Unreadable, read_picture
from lincon.tasks.experiments.data.sets import Split
from lincon.tasks.pose.data.batch import Batch

CROWD = 8  # at most so many people of a photo are in a batch
TINY = 1000  # below so many people, processes that load cost more than they save


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person.

    Coordinates are (x, y) in pixels of the photo; (0, 0) is the centre of its top left pixel.

    Args:
        image: the photo.
        centre: middle of the square box around the person.
        side: the box's side, in pixels.
        joints: (people, 16, 2) float, in the order of `skeleton.JOINTS`: this person, then
            everybody else who is annotated in the photo; 0 where not known.
        known: (people, 16) bool: whether the joint is annotated.
        head: head size in pixels, as PCKh counts it; nan where not annotated.
    """

    image: Path
    centre: tuple[float, float]
    side: float
    joints: np.ndarray
    known: np.ndarray
    head: float


class Photos(Split):
    """People cut out of their photos: ``photos[indices]`` is the batch of those people.

    The box around a person, ``margin`` times enlarged, becomes round(size * margin) pixels square;
    joints and head size are mapped alike. What lies outside of the photo is black. Every batch has
    room for as many people as the fullest photo shows, 8 at most, of whom the nearest come first.

    Args:
        people: whom to show.
        size: pixels that the side of a box becomes.
        margin: how much of the surroundings to keep, for an augmentation to move into view; 1 keeps
            the box alone.

    Raises:
        LinconError: size or margin that leaves no picture; on reading, a photo that is missing or
            damaged, by path.
    """

    def __init__(self, people: Sequence[Person], size: int, margin: float = 1.0) -> None:
        if size < 1 or not 0 < margin < float("inf") or round(size * margin) < 1:
            raise LinconError(
                f"people of size {size} with margin {margin} are no pictures: both must be "
                "positive."
            )
        self.people, self.size, self.margin = people, size, margin
        self.crowd = min(CROWD, max((len(person.joints) for person in people), default=1))
        self.workers = min(8, os.cpu_count() or 1) if len(people) >= TINY else 0

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, indices: list[int]) -> Batch:
        views = [self._view(self.people[i]) for i in indices]
        return Batch(*(torch.stack(tensors) for tensors in zip(*views, strict=True)))

    def subset(self, indices: Tensor) -> "Photos":
        """The people at ``indices`` alone."""
        return Photos([self.people[i] for i in indices.tolist()], self.size, self.margin)

    def _view(self, person: Person) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The batch's row of one person."""
        side, pixels = person.side * self.margin, round(self.size * self.margin)
        image = crop(person.image, person.centre, side, pixels)
        shown = nearest(person, self.crowd)
        known = np.zeros((self.crowd, 16), bool)
        known[: len(shown)] = person.known[shown]
        joints = np.zeros((self.crowd, 16, 2), np.float32)
        from_centre = (person.joints[shown] - person.centre) * (pixels / side)
        joints[: len(shown)] = from_centre + (pixels - 1) / 2
        joints[~known] = 0
        head = torch.tensor(person.head * pixels / side, dtype=torch.float32)
        return image, torch.from_numpy(joints), torch.from_numpy(known), head


def nearest(person: Person, count: int) -> np.ndarray:
    """Indices of the people to show: the person, then the others by the distance of their means.

    There are at most ``count``. A mean is that of a person's known joints.
    """
    known = person.known[..., None]
    means = (person.joints * known).sum(1) / known.sum(1).clip(min=1)
    distances: np.ndarray = np.hypot(*(means - person.centre).T)
    distances[~person.known.any(1)] = np.inf
    distances[0] = -1
    return distances.argsort(kind="stable")[:count]


def crop(
    path: Path, centre: tuple[float, float], side: float, pixels: int, *, upright: bool = False
) -> UInt8[Tensor, "3 pixels pixels"]:
    """A square of a photo, antialiased, black outside of the photo.

    The point (x, y) of the photo lands at ((x, y) - centre) * pixels / side + (pixels - 1) / 2.

    Args:
        path: of the photo.
        centre: of the square, in pixels of the photo.
        side: of the square, in pixels of the photo.
        pixels: that the side becomes.
        upright: count pixels in the photo as viewers show it. The data sets count them as they are
            stored.

    Raises:
        Unreadable: the photo is missing or damaged.
    """
    picture = read_picture(path, upright=upright)
    corner = np.array(centre) + 0.5 - side / 2  # PIL counts from the edge of the first pixel
    reach = max(1, side / pixels)  # of the filter beyond the box
    try:
        left, top = np.floor(corner - reach).astype(int).tolist()
        right, bottom = np.ceil(corner + side + reach).astype(int).tolist()
        start = corner - (left, top)
        box = (*start.tolist(), *(start + side).tolist())
        surroundings = picture.crop((left, top, right, bottom))
        resized = surroundings.resize((pixels, pixels), Image.Resampling.BILINEAR, box)
    except Exception as reason:  # PIL's limits are not documented
        raise Unreadable(
            f"{path} cannot be read {side:g} pixels wide around {centre} ({one_line(reason)}): "
            "correct the box, or leave it out."
        ) from None
    return rearrange(torch.from_numpy(np.array(resized)), "height width rgb -> rgb height width")
