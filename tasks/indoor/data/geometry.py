"""A pinhole camera in a room, boxes that stand there, and what rays meet.

A room's axes are x and y along the floor, whose middle is the origin, and z upwards; lengths are in
metres. Sums are written out, as the rounding of a product of matrices depends on the batch.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from lincon.shapes import Float, Int64

_STEEPEST = 1e9
_CORNERS = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).T


class Hits(NamedTuple):
    """The first surface on each of p rays in n rooms.

    depth: along the optical axis.
    normal: of unit length, against the ray, in the room's axes.
    across, along: coordinates on the surface, in metres; on upright surfaces the second is upwards.
    """

    depth: Float[Tensor, "n p"]
    normal: Float[Tensor, "3 n p"]
    across: Float[Tensor, "n p"]
    along: Float[Tensor, "n p"]
    material: Int64[Tensor, "n p"]


class Camera(NamedTuple):
    """A pinhole in each of n rooms; the optical axis goes through the middle of the picture.

    frame: its columns are the picture's right, down and forward in the room's axes.
    focal: in pixels.
    """

    place: Float[Tensor, "n 3"]
    frame: Float[Tensor, "n 3 3"]
    focal: Float[Tensor, " n"]

    @property
    def axes(self) -> Float[Tensor, "3 3 n 1"]:
        """Right, down and forward."""
        return rearrange(self.frame, "n xyz column -> column xyz n 1")

    def rays(self, size: int) -> Float[Tensor, "3 n {size}*{size}"]:
        """Through the pixels' centres, row by row, so long that their depth is 1."""
        places = torch.arange(size) - (size - 1) / 2
        columns, rows = torch.meshgrid(places, places, indexing="xy")
        x = columns.reshape(1, -1) / self.focal[:, None]
        y = rows.reshape(1, -1) / self.focal[:, None]
        right, down, forward = self.axes
        rays: Tensor = right * x + down * y + forward
        return rays

    def points(
        self, rays: Float[Tensor, "3 n p"], depth: Float[Tensor, "n p"]
    ) -> Float[Tensor, "3 n p"]:
        """The points on ``rays`` at ``depth``."""
        return rays * depth + self.place.T[..., None]

    def seen(self, vectors: Float[Tensor, "3 n p"]) -> Float[Tensor, "3 n p"]:
        """From the room's axes to right of the picture, down, and towards the camera."""
        right, down, forward = self.axes
        return torch.stack((dot(right, vectors), dot(down, vectors), -dot(forward, vectors)))

    def footprint(self, rays: Float[Tensor, "3 n p"], hits: Hits) -> Float[Tensor, "n p"]:
        """The length of a pixel on the surface that is hit, in metres."""
        slant = dot(rays, hits.normal).abs_().clamp_(min=0.02)
        return dot(rays, rays).sqrt_().mul_(hits.depth).div_(slant * self.focal[:, None])


class Boxes(NamedTuple):
    """m upright boxes in n rooms.

    room: the number of each box's room.
    centre, half: the middle, and half of each side.
    turn: cosine and sine of the angle by which a box is turned about the upright axis.
    """

    room: Int64[Tensor, " m"]
    centre: Float[Tensor, "m 3"]
    half: Float[Tensor, "m 3"]
    turn: Float[Tensor, "m 2"]
    material: Int64[Tensor, " m"]

    def at(self, index: Int64[Tensor, " k"]) -> "Boxes":
        """The boxes at ``index`` alone."""
        return Boxes(*(field[index] for field in self))

    def inside(self, points: Float[Tensor, "3 m *p"]) -> Float[Tensor, "3 m *p"]:
        """From the room's axes to those of each box, from its centre."""
        shape = (-1, *[1] * (points.ndim - 2))
        x, y, z = (points[axis] - self.centre[:, axis].view(shape) for axis in range(3))
        cosine, sine = (part.view(shape) for part in self.turn.unbind(1))
        return torch.stack((cosine * x + sine * y, cosine * y - sine * x, z))

    def corners(self) -> Float[Tensor, "3 m 8"]:
        """In the room's axes."""
        x, y, z = (self.half.T[..., None] * _CORNERS[:, None]).unbind(0)
        cosine, sine = self.turn.T[..., None]
        offsets = torch.stack((cosine * x - sine * y, cosine * y + sine * x, z))
        return offsets + self.centre.T[..., None]


def dot(
    one: Float[Tensor, "3 *#shape"], other: Float[Tensor, "3 *#shape"]
) -> Float[Tensor, "*shape"]:
    """Dot products over the first axis."""
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def inverse(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 / x; for 0 a large number, so that 0 / 0 comes to 0.

    >>> (torch.tensor([2.0, 0.0]).mul(0) * inverse(torch.tensor([2.0, 0.0]))).tolist()
    [0.0, 0.0]
    """
    return x.reciprocal().clamp_(-_STEEPEST, _STEEPEST)
