"""A pinhole camera in a room, boxes that stand there, and what rays meet.

A room's axes are x and y along the floor, whose middle is the origin, and z upwards; lengths are in
metres. Sums are written out, as a product of matrices is rounded differently in batches of
different sizes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_STEEPEST = 1e9
_CORNERS = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).T


class Hits(NamedTuple):
    """What each of p rays in n rooms meets first.

    depth: (n, p), along the optical axis.
    normal: (3, n, p), of unit length, against the ray, in the room's axes.
    across, along: (n, p): coordinates on the surface, in metres; on upright ones the second is
        upwards.
    material: (n, p), int64.
    """

    depth: Tensor
    normal: Tensor
    across: Tensor
    along: Tensor
    material: Tensor


class Camera(NamedTuple):
    """A pinhole in each of n rooms, the optical axis through the middle of the picture.

    place: (n, 3).
    frame: (n, 3, 3): its columns are the picture's right, down and forward in the room's axes.
    focal: (n,), in pixels.
    """

    place: Tensor
    frame: Tensor
    focal: Tensor

    @property
    def axes(self) -> Tensor:
        """(3, 3, n, 1): right, down and forward."""
        return self.frame.permute(2, 1, 0)[..., None]

    def rays(self, size: int) -> Tensor:
        """(3, n, size²): through the pixels' centres, row by row, as long as makes their depth 1."""
        places = torch.arange(size) - (size - 1) / 2
        x, y = (
            of.reshape(1, -1) / self.focal[:, None]
            for of in torch.meshgrid(places, places, indexing="xy")
        )
        right, down, forward = self.axes
        return right * x + down * y + forward

    def points(self, rays: Tensor, depth: Tensor) -> Tensor:
        """(3, n, p): where ``rays`` (3, n, p) are at ``depth`` (n, p)."""
        return rays * depth + self.place.T[..., None]

    def seen(self, vectors: Tensor) -> Tensor:
        """(3, n, p) in the room's axes -> to the right of the picture, down, and towards the camera."""
        right, down, forward = self.axes
        return torch.stack((dot(right, vectors), dot(down, vectors), -dot(forward, vectors)))

    def footprint(self, rays: Tensor, hits: Hits) -> Tensor:
        """(n, p): the length of a pixel on the surface that is hit, in metres."""
        slant = dot(rays, hits.normal).abs_().clamp_(min=0.02)
        return dot(rays, rays).sqrt_().mul_(hits.depth).div_(slant * self.focal[:, None])


class Boxes(NamedTuple):
    """m upright boxes in n rooms.

    room: (m,), int64: in which.
    centre, half: (m, 3): the middle, and half of each side.
    turn: (m, 2): cosine and sine of the angle by which they are turned about the upright axis.
    material: (m,), int64.
    """

    room: Tensor
    centre: Tensor
    half: Tensor
    turn: Tensor
    material: Tensor

    def at(self, index: Tensor) -> "Boxes":
        return Boxes(*(of[index] for of in self))

    def inside(self, points: Tensor) -> Tensor:
        """(3, m, ...) in the room's axes -> in those of each box, from its centre."""
        shape = (-1, *[1] * (points.ndim - 2))
        x, y, z = (points[axis] - self.centre[:, axis].view(shape) for axis in range(3))
        cosine, sine = (of.view(shape) for of in self.turn.unbind(1))
        return torch.stack((cosine * x + sine * y, cosine * y - sine * x, z))

    def corners(self) -> Tensor:
        """(3, m, 8), in the room's axes."""
        x, y, z = (self.half.T[..., None] * _CORNERS[:, None]).unbind(0)
        cosine, sine = self.turn.T[..., None]
        return (
            torch.stack((cosine * x - sine * y, cosine * y + sine * x, z))
            + self.centre.T[..., None]
        )


def dot(one: Tensor, other: Tensor) -> Tensor:
    """(3, ...) and (3, ...) -> (...)."""
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def inverse(of: Tensor) -> Tensor:
    """1 / x, and for 0 a large number: 0/0 is 0."""
    return of.reciprocal().clamp_(-_STEEPEST, _STEEPEST)
