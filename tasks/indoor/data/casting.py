"""The first surface on each ray, and shadows: slab tests on the boxes that a ray may meet."""

import torch
from torch import Tensor

from lincon.shapes import Bool, Float
from lincon.tasks.indoor.data.geometry import Boxes, Camera, Hits, dot, inverse

FLOOR, CEILING, WALL = range(3)
"""Materials of a room itself."""

_NEAR = 0.05  # metres before the camera within which a box's corners are not projected


def cast(
    camera: Camera, rays: Float[Tensor, "3 n p"], extent: Float[Tensor, "n 3"], boxes: Boxes
) -> Hits:
    """The first surface on each of the camera's ``rays``.

    Args:
        extent: sizes of the rooms, metres.
        boxes: in the rooms, room by room. The camera must be outside of them.
    """
    hits = _walls(camera, rays, extent)
    box, ray = _candidates(camera, boxes, rays.shape[2])
    depth, axis, met = _fronts(boxes, camera.place, rays, box, ray)
    box, ray, depth, axis = box[met], ray[met], depth[met], axis[met]
    # The bits of positive floats have the order of the floats: the least of these numbers is the
    # nearest, and its lower half tells which pair it is.
    pairs = torch.arange(len(ray) + 1)
    walls = _bits(hits.depth.flatten()) + pairs[-1]
    first = walls.scatter_reduce(0, ray, _bits(depth) + pairs[:-1], "amin") & 0xFFFFFFFF
    visible = first[first < len(ray)]
    met_first = ray[visible], depth[visible], axis[visible]
    _cover(hits, camera, rays, boxes.at(box[visible]), met_first)
    return hits


def shaded(
    points: Float[Tensor, "3 n p"],
    lamp: Float[Tensor, "n 3"],
    casters: Boxes,
    present: Bool[Tensor, "n k"],
) -> Bool[Tensor, "n p"]:
    """Whether something is between ``points`` and ``lamp``.

    Args:
        casters: k for each room, one room after the other.
        present: the casters that count.
    """
    dark = torch.zeros(points.shape[1:], dtype=torch.bool)
    first = torch.arange(len(present)) * present.shape[1]
    present, order = present.sort(dim=1, descending=True, stable=True)
    for place in range(int(present.any(0).sum())):
        caster = casters.at(first + order[:, place])
        start, end = caster.inside(points), caster.inside(lamp.T)[..., None]
        slope = inverse(end - start)
        middle, reach = start.mul_(slope).neg_(), slope.abs_().mul_(caster.half.T[..., None])
        near, far = (middle - reach).amax(0), middle.add_(reach).amin(0)
        dark |= (near < far) & (far > 1e-3) & (near < 1) & present[:, place, None]
    return dark


def _walls(camera: Camera, rays: Tensor, extent: Tensor) -> Hits:
    width, breadth, height = extent.T[..., None]
    low = torch.stack((-width / 2, -breadth / 2, 0 * height))
    high = torch.stack((width / 2, breadth / 2, height))
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
    """Box and ray of all pairs that can meet: for each box a rectangle of the picture.

    The rays of all rooms have consecutive numbers.
    """
    size = round(pixels**0.5)
    cameras = Camera(*(field[boxes.room] for field in camera))
    low, high = _rectangles(cameras, boxes, size)
    width, height = (high - low + 1).clamp_(min=0)
    count = width * height
    box = torch.arange(len(count)).repeat_interleave(count)
    offset = torch.arange(len(box)) - (count.cumsum(0) - count)[box]
    corner = boxes.room * pixels + low[1] * size + low[0]
    return box, corner[box] + offset + offset // width[box] * (size - width)[box]


def _rectangles(camera: Camera, boxes: Boxes, size: int) -> tuple[Tensor, Tensor]:
    """First and last column and row, (2, m) each, of the pixels that can show a box.

    There is a camera for each box.
    """
    corners = boxes.corners() - camera.place.T[..., None]
    x, y, z = (dot(axis, corners) for axis in camera.axes)
    places = torch.stack((x, y)) / z * camera.focal[:, None] + (size - 1) / 2
    low = (places.amin(2) - 0.01).ceil().clamp_(0, size)
    high = (places.amax(2) + 0.01).floor().clamp_(-1, size - 1)
    # If a box reaches behind the camera, its corners only tell whether it is beside the picture.
    behind, limit = (z < _NEAR).any(1), z * (size / 2 / camera.focal)[:, None]
    beyond_an_edge = [(offset > limit).all(1) for offset in (x, -x, y, -y)]
    aside = torch.stack(beyond_an_edge).any(0) | (z < _NEAR).all(1)
    low, high = torch.where(behind, 0, low), torch.where(behind, size - 1, high)
    return low.long(), torch.where(aside, -1, high).long()


def _fronts(
    boxes: Boxes, place: Tensor, rays: Tensor, box: Tensor, ray: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The depth and the axis at which each ray enters its box, and whether it does."""
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
    """Replace the walls by ``boxes`` where they are met.

    ``met``: ray, depth and axis, one of each for every box.
    """
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
    """int64: the float's bits in the upper half, zeros in the lower."""
    return positive.view(torch.int32).long() << 32
