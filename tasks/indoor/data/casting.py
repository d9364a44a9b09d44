"""What each ray meets first, and what is in shadow: slab tests, on the boxes that a ray may meet."""

import torch
from torch import Tensor

from lincon.tasks.indoor.data.geometry import Boxes, Camera, Hits, dot, inverse

FLOOR, CEILING, WALL = range(3)
"""Materials of a room itself."""

_NEAR = 0.05  # metres before the camera within which a box's corners are not projected


def cast(camera: Camera, rays: Tensor, extent: Tensor, boxes: Boxes) -> Hits:
    """The first surface on each of the camera's ``rays`` (3, n, p).

    Args:
        extent: (n, 3), of the rooms.
        boxes: inside of the rooms, and the camera in none of them; a room's are in one run.
    """
    hits = _walls(camera, rays, extent)
    box, ray = _candidates(camera, boxes, rays.shape[2])
    depth, axis, met = _fronts(boxes, camera.place, rays, box, ray)
    box, ray, depth, axis = box[met], ray[met], depth[met], axis[met]
    # A positive float's bits are ordered as the float: the least of these numbers is nearest, and its end tells which.
    pairs = torch.arange(len(ray) + 1)
    walls = _bits(hits.depth.flatten()) + pairs[-1]
    first = walls.scatter_reduce(0, ray, _bits(depth) + pairs[:-1], "amin") & 0xFFFFFFFF
    seen = first[first < len(ray)]
    _cover(hits, camera, rays, boxes.at(box[seen]), (ray[seen], depth[seen], axis[seen]))
    return hits


def shaded(points: Tensor, lamp: Tensor, casters: Boxes, there: Tensor) -> Tensor:
    """(n, p), bool: whether something is between ``points`` (3, n, p) and ``lamp`` (n, 3).

    Args:
        casters: k for each room, one room after the other.
        there: (n, k), bool: those that count.
    """
    dark = torch.zeros(points.shape[1:], dtype=torch.bool)
    first = torch.arange(len(there)) * there.shape[1]
    there, order = there.sort(dim=1, descending=True, stable=True)
    for place in range(int(there.any(0).sum())):
        caster = casters.at(first + order[:, place])
        start, end = caster.inside(points), caster.inside(lamp.T)[..., None]
        slope = inverse(end - start)
        middle, reach = start.mul_(slope).neg_(), slope.abs_().mul_(caster.half.T[..., None])
        near, far = (middle - reach).amax(0), middle.add_(reach).amin(0)
        dark |= (near < far) & (far > 1e-3) & (near < 1) & there[:, place, None]
    return dark


def _walls(camera: Camera, rays: Tensor, extent: Tensor) -> Hits:
    width, breadth, height = extent.T[..., None]
    low, high = (
        torch.stack((-width / 2, -breadth / 2, 0 * height)),
        torch.stack((width / 2, breadth / 2, height)),
    )
    ahead, place = rays > 0, camera.place.T[..., None]
    x, y, z = torch.where(ahead, high - place, low - place) * inverse(rays)
    depth = torch.minimum(torch.minimum(x, y), z)
    level, side = z == depth, (x == depth) & (z != depth)
    axes = torch.stack((side, ~(side | level), level))
    normal = torch.where(axes, torch.where(ahead, -1.0, 1.0), 0.0)
    x, y, z = camera.points(rays, depth)
    material = torch.where(level, torch.where(ahead[2], CEILING, FLOOR), WALL)
    return Hits(depth, normal, torch.where(side, y, x), torch.where(level, y, z), material)


def _candidates(camera: Camera, boxes: Boxes, pixels: int) -> tuple[Tensor, Tensor]:
    """Pairs of a box and a ray, all that can meet: for each box a rectangle of the picture.

    Rays are numbered through all rooms.
    """
    size = round(pixels**0.5)
    low, high = _rectangles(Camera(*(of[boxes.room] for of in camera)), boxes, size)
    width, height = (high - low + 1).clamp_(min=0)
    count = width * height
    box = torch.arange(len(count)).repeat_interleave(count)
    offset = torch.arange(len(box)) - (count.cumsum(0) - count)[box]
    corner = boxes.room * pixels + low[1] * size + low[0]
    return box, corner[box] + offset + offset // width[box] * (size - width)[box]


def _rectangles(camera: Camera, boxes: Boxes, size: int) -> tuple[Tensor, Tensor]:
    """First and last column and row, (2, m) each, between which a box can be seen; a camera for each box."""
    corners = boxes.corners() - camera.place.T[..., None]
    x, y, z = (dot(axis, corners) for axis in camera.axes)
    places = torch.stack((x, y)) / z * camera.focal[:, None] + (size - 1) / 2
    low, high = (
        (places.amin(2) - 0.01).ceil().clamp_(0, size),
        (places.amax(2) + 0.01).floor().clamp_(-1, size - 1),
    )
    # Where the box reaches behind the camera its corners tell nothing but whether it is aside of the whole picture.
    behind, limit = (z < _NEAR).any(1), z * (size / 2 / camera.focal)[:, None]
    aside = torch.stack([(of > limit).all(1) for of in (x, -x, y, -y)]).any(0) | (z < _NEAR).all(1)
    low, high = torch.where(behind, 0, low), torch.where(behind, size - 1, high)
    return low.long(), torch.where(aside, -1, high).long()


def _fronts(
    boxes: Boxes, place: Tensor, rays: Tensor, box: Tensor, ray: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pair of a box and a ray the depth and the axis at which it enters, and whether it does."""
    start = boxes.inside(place[boxes.room].T)
    cosine, sine, *rest = torch.cat((boxes.turn.T, -start, boxes.half.T)).index_select(1, box)
    x, y, z = rays.flatten(1).index_select(1, ray)
    slope = inverse(torch.stack((cosine * x + sine * y, cosine * y - sine * x, z)))
    middle, reach = torch.stack(rest[:3]).mul_(slope), torch.stack(rest[3:]).mul_(slope.abs_())
    x, y, z = middle - reach
    near, far = torch.maximum(torch.maximum(x, y), z), middle.add_(reach).amin(0)
    axis = torch.where(z == near, 2, torch.where(x == near, 0, 1))
    return near, axis, (near < far) & (near > 0)


def _cover(
    hits: Hits, camera: Camera, rays: Tensor, boxes: Boxes, met: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Put what is met at ``boxes`` before the walls. ``met``: ray, depth and axis, one each for every box."""
    ray, depth, axis = met
    ahead = rays.flatten(1).index_select(1, ray)
    x, y, z = boxes.inside(camera.place.T[:, boxes.room] + ahead * depth)
    cosine, sine = boxes.turn.unbind(1)
    level, side = axis == 2, axis == 0
    upright = torch.stack(
        (torch.where(side, cosine, -sine), torch.where(side, sine, cosine), torch.zeros_like(x))
    )
    normal = torch.where(level, torch.tensor([[0.0], [0.0], [1.0]]), upright)
    hits.depth.view(-1)[ray] = depth
    hits.normal.view(3, -1)[:, ray] = normal * torch.where(dot(normal, ahead) > 0, -1.0, 1.0)
    hits.across.view(-1)[ray] = torch.where(side, y, x)
    hits.along.view(-1)[ray] = torch.where(level, y, z)
    hits.material.view(-1)[ray] = boxes.material


def _bits(positive: Tensor) -> Tensor:
    """int64, the float's bits above 32 bits that are free."""
    return positive.view(torch.int32).long() << 32
