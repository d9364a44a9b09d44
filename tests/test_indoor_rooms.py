"""The ray-cast rooms: a function of seed and index, with depth and normals that agree with slow geometry."""

import math

import pytest
import torch

from lincon import LinconError
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.indoor.data import casting
from lincon.tasks.indoor.data.casting import CEILING, FLOOR, WALL, cast, shaded
from lincon.tasks.indoor.data.furnishing import rooms as furnished
from lincon.tasks.indoor.data.furniture import KINDS
from lincon.tasks.indoor.data.geometry import Boxes, Camera, Hits
from lincon.tasks.indoor.data.lighting import exposed
from lincon.tasks.indoor.data.rooms import Rooms
from lincon.tasks.indoor.data.surfaces import Materials, colours

SIZE = 64
STRAIGHT = torch.tensor([[[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]])  # looks along y; down is -z


@pytest.fixture(scope="module")
def batch():
    return Rooms(1000, seed=3)[list(range(150))]


def scenes(n, size=SIZE, seed=0):
    """Sizes, cameras, pieces, rays and hits."""
    extent, camera, pieces = furnished(KeyedRandom(torch.arange(n) * 7919 + seed), size)
    rays = camera.rays(size)
    return extent, camera, pieces, rays, cast(camera, rays, extent, pieces.boxes())


def same(one, other):
    return all(
        torch.equal(a.nan_to_num(-9), b.nan_to_num(-9)) for a, b in zip(one, other, strict=True)
    )


def box(*, centre, half, degrees=0.0, material=3):
    turn = (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    return Boxes(*(torch.tensor([of]) for of in (0, centre, half, turn, material)))


def none():
    return box(centre=(0.0, 0, 1), half=(0.1, 0.1, 0.1)).at(torch.arange(0))


def looking(x=0.0, y=0.0, height=1.5, focal=64.0):
    return Camera(torch.tensor([[x, y, height]]), STRAIGHT, torch.tensor([focal]))


def view(camera, boxes, extent=(6.0, 8.0, 3.0), size=32):
    rays = camera.rays(size)
    hits = cast(camera, rays, torch.tensor([extent]), boxes)
    return (
        hits.depth.view(size, size),
        camera.seen(hits.normal)[:, 0].view(3, size, size),
        hits.material.view(size, -1),
    )


def test_a_batch_is_what_it_says(batch):
    assert batch.images.shape == (150, 3, SIZE, SIZE) and batch.images.dtype == torch.uint8
    assert batch.depth.shape == (150, SIZE, SIZE) and batch.depth.dtype == torch.float32
    assert batch.normals.shape == (150, 3, SIZE, SIZE) and batch.normals.dtype == torch.float32
    assert all(of.is_contiguous() for of in batch)
    assert [of.shape for of in Rooms(4, 0, 41)[[2]]] == [
        (1, 3, 41, 41),
        (1, 41, 41),
        (1, 3, 41, 41),
    ]
    assert [len(of) for of in Rooms(4, 0)[[]]] == [0, 0, 0]


def test_a_view_is_the_same_alone_in_any_batch_and_at_any_time(batch):
    rooms = Rooms(1000, seed=3)
    for index in (0, 15, 16, 101, 149):
        assert same(rooms[[index]], [of[index : index + 1] for of in batch])
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))[:53]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert same(rooms[order.tolist()], [of[order] for of in batch])
    assert torch.get_rng_state().equal(state)
    assert same(Rooms(10**15, seed=3)[[140]], [of[140:141] for of in batch])  # and costs no more
    odd = Rooms(9, seed=3, size=37)
    assert same(odd[[4]], [of[2:3] for of in odd[[8, 0, 4]]])


def test_threads_do_not_matter():
    threads = torch.get_num_threads()
    views = []
    for count in (1, 3):
        torch.set_num_threads(count)
        views.append(Rooms(9, seed=0, size=200)[[0, 5]])
    torch.set_num_threads(threads)
    assert same(*views)


def test_other_seeds_and_indices_give_other_views(batch):
    assert len(batch.images.flatten(1).unique(dim=0)) == 150
    assert len(batch.depth.nan_to_num(0).flatten(1).unique(dim=0)) == 150
    for seed in (4, -3, 2**80):
        other = Rooms(9, seed)[[0]]
        assert (other.images != batch.images[:1]).float().mean() > 0.9
        assert (other.depth - batch.depth[:1]).abs().nanmean() > 0.05


def test_a_subset_is_those_views(batch):
    part = Rooms(1000, seed=3).subset(torch.tensor([7, 3, 120]))
    assert len(part) == 3 and same(part[[2, 0]], [of[[120, 7]] for of in batch])
    assert same(part.subset(torch.tensor([1]))[[0]], [of[3:4] for of in batch])
    with pytest.raises(LinconError, match="View 3 of 3 rooms: choose from 0 to 2"):
        part[[3]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"count": 0}, "count=0: choose count from 1"),
        ({"size": 15}, "size=15: choose size from 16"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(LinconError, match=message):
        Rooms(**{"count": 5, "seed": 0, **arguments})


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_out_of_range_is_named(index):
    for use in (lambda: Rooms(5, 0)[[0, index]], lambda: Rooms(5, 0).subset(torch.tensor([index]))):
        with pytest.raises(LinconError, match=f"View {index} of 5 rooms: choose from 0 to 4"):
            use()


def test_what_is_unknown_is_so_in_both_and_rare(batch):
    unknown = batch.depth.isnan()
    assert batch.normals.isnan().equal(unknown[:, None].expand(-1, 3, -1, -1))
    assert 0.005 < unknown.float().mean() < 0.035
    assert 0.03 < unknown.flatten(1).any(1).float().mean() < 0.6


def test_depth_varies_and_is_inside_of_a_room(batch):
    depth = batch.depth[~batch.depth.isnan()]
    assert depth.min() > 0.2 and depth.max() < math.hypot(8, 8, 3.2)
    assert depth.std() > 0.8 and batch.depth.flatten(1).nanmedian(1).values.std() > 0.5
    extent, _, _, _, hits = scenes(60)
    assert (hits.depth < (extent * extent).sum(1).sqrt()[:, None]).all()


def test_normals_are_of_unit_length_and_face_the_camera(batch):
    known = ~batch.depth.isnan()
    lengths = batch.normals.norm(dim=1)[known]
    assert lengths.allclose(torch.ones_like(lengths), atol=1e-5)
    _, camera, _, rays, hits = scenes(60)
    seen, forward = camera.seen(hits.normal), camera.seen(rays)
    assert ((seen * forward).sum(0) < 0).all() and forward[2].allclose(torch.tensor(-1.0))
    assert (
        (seen[2] > 0).float().mean() > 0.8
    )  # beside the optical axis a surface may face the pinhole and away from it


def test_pictures_are_neither_dark_nor_pale(batch):
    images = batch.images.float()
    assert 90 < images.mean() < 170 and images.flatten(1).mean(1).std() > 10
    assert (batch.images == 0).float().mean() < 0.05 and (batch.images == 255).float().mean() < 0.1


def test_a_wall_in_front_has_one_depth_and_floor_and_ceiling_are_where_they_are():
    """The wall is at 4 m in the picture's middle and at its edge; a ray's length would not be."""
    depth, normals, material = view(looking(focal=24.0), none(), size=48)
    wall = material == WALL
    front = wall & (normals[2] == 1)
    assert (depth[front] == 4).all() and front[16:32, 8:40].all()
    assert (material[0] == CEILING).all() and (material[-1] == FLOOR).all()
    rows = torch.arange(48) - 23.5
    for surface, normal in ((FLOOR, (0, -1, 0)), (CEILING, (0, 1, 0))):
        place = (material == surface).nonzero()
        assert depth[material == surface].allclose(1.5 * 24 / rows[place[:, 0]].abs())
        assert (normals[:, material == surface] == torch.tensor(normal)[:, None]).all()
    left, right = wall & (normals[0] == 1), wall & (normals[0] == -1)
    assert left[24, 0] and right[24, -1] and (left | right | front).equal(wall)
    assert depth[24, 0].item() == pytest.approx(3 * 24 / 23.5)


def test_a_box_is_seen_where_it_projects():
    depth, normals, material = view(
        looking(), box(centre=(0.5, 2.5, 1.25), half=(0.25, 0.5, 0.25), material=7)
    )
    seen = material == 7
    columns, rows = seen.any(0).nonzero()[:, 0], seen.any(1).nonzero()[:, 0]
    # Its front at 2 m begins 0.25 m to the right, 8 pixels, and its back at 3 m 5.3; it reaches from 0 to 0.5 m down.
    assert (columns[0], rows[0], rows[-1]) == (21, 16, 31) and columns[-1] == 31
    front = seen & (normals[2] == 1)
    assert (depth[front] == 2).all() and front[16:32, 24:32].all()
    assert (normals[0][seen & ~front] == -1).all() and (depth[~seen] == 4).all()


def test_a_turned_box_turns_its_edge_to_the_camera():
    depth, normals, material = view(
        looking(), box(centre=(0.0, 2, 1.5), half=(0.5, 0.5, 2), degrees=45)
    )
    seen = material == 3
    at = math.sqrt(0.5)
    left, right = torch.tensor([-at, 0, at]), torch.tensor([at, 0, at])
    assert normals[:, 16, :16][:, seen[16, :16]].T.allclose(left) and seen[16, 15:17].all()
    assert normals[:, 16, 16:][:, seen[16, 16:]].T.allclose(right)
    assert depth[16, 15:17].tolist() == pytest.approx([(2 - at) / (1 - 0.5 / 64)] * 2)


def test_depth_agrees_with_marching_along_the_rays():
    """Small steps through the room until a point is in a wall or in a box, the boxes turned by trigonometry."""
    size = 16
    extent, camera, pieces, rays, hits = scenes(12, size)
    boxes, step = pieces.boxes(), 0.02
    times = torch.arange(0, 13, step)
    for room in range(12):
        theirs = boxes.at((boxes.room == room).nonzero()[:, 0])
        points = rays[:, room, ::5, None] * times + camera.place[room, :, None, None]
        half = extent[room] / 2
        solid = (
            (points[0].abs() > half[0])
            | (points[1].abs() > half[1])
            | ((points[2] - half[2]).abs() > half[2])
        )
        for centre, reach, turn in zip(theirs.centre, theirs.half, theirs.turn, strict=True):
            angle = math.atan2(turn[1], turn[0])
            x, y, z = points - centre[:, None, None]
            apart = torch.complex(x, y) * complex(math.cos(angle), -math.sin(angle))
            solid |= (
                (apart.real.abs() < reach[0]) & (apart.imag.abs() < reach[1]) & (z.abs() < reach[2])
            )
        marched = times[solid.int().argmax(1)]
        late = marched - hits.depth[room, ::5]
        assert late.min() > -1e-4  # never through what is solid
        assert (
            late < step + 1e-4
        ).float().mean() > 0.95  # less than a step after, but for what is thin


def test_no_box_reaches_beyond_the_rectangle_in_which_it_is_looked_for(monkeypatch):
    *_, narrow = scenes(40, 24)

    def whole(camera, boxes, size):
        return torch.tensor([0, size - 1])[:, None, None].expand(2, 2, len(boxes.room))

    monkeypatch.setattr(casting, "_rectangles", whole)
    *_, wide = scenes(40, 24)
    assert same(narrow, wide)


def test_normals_agree_with_differences_of_the_points_seen(batch):
    """Depth, focal length and axes together: points on a surface are at right angles to its normal."""
    _, camera, _, _, hits = scenes(100)
    depth, normals = (
        hits.depth.view(-1, SIZE, SIZE),
        camera.seen(hits.normal).view(3, -1, SIZE, SIZE),
    )
    place = (torch.arange(SIZE) - (SIZE - 1) / 2) / camera.focal[:, None]
    points = torch.stack(
        (depth * place[:, None], depth * place[:, :, None], -depth)
    )  # right, down, to the camera
    aside, below = (
        points[..., :-1, 1:] - points[..., :-1, :-1],
        points[..., 1:, :-1] - points[..., :-1, :-1],
    )
    normal = normals[..., :-1, :-1]
    smooth = (normals[..., :-1, 1:] == normal).all(0) & (normals[..., 1:, :-1] == normal).all(0)
    off = torch.maximum((aside * normal).sum(0).abs(), (below * normal).sum(0).abs())
    flat = off[smooth] < 0.01
    assert (
        smooth.float().mean() > 0.85 and flat.float().mean() > 0.95
    )  # others are parallel: a door and its wall
    # With x right and y down and z to the camera, axes are left-handed, and right times down points away.
    measured = torch.linalg.cross(below, aside, dim=0)
    measured = measured / measured.norm(dim=0)
    right = smooth & (off < 1e-4)
    assert right.float().mean() > 0.6
    assert ((measured * normal).sum(0)[right].abs() > 0.99).float().mean() > 0.98


def test_floors_face_up_and_the_axes_are_those_of_2d_3d_s(batch):
    """In a level camera's picture a floor is (0, -1, 0): its green is 0."""
    bottom, top = batch.normals[:, 1, -1], batch.normals[:, 1, 0]
    assert (bottom < -0.9).float().mean() > 0.3 and (bottom > 0.9).float().mean() < 0.02
    assert (top > 0.9).float().mean() > 0.3 and (top < -0.9).float().mean() < 0.02
    left, right = batch.normals[:, 0, :, 0].nanmean(), batch.normals[:, 0, :, -1].nanmean()
    assert left > 0.2 and right < -0.2  # the walls at the sides face the middle


def test_pieces_overlap_neither_each_other_nor_the_camera():
    extent, camera, pieces, *_ = scenes(300)
    corners = pieces.boxes().corners()
    room = extent[pieces.boxes().room].T[..., None]
    assert (corners[2] > -1e-5).all() and (corners[2] < room[2]).all()
    assert (corners[:2].abs() < room[:2] / 2 + 0.1).all()  # handles may stick in a wall
    inside = (
        pieces.boxes().inside(camera.place[pieces.boxes().room].T).abs() - pieces.boxes().half.T
    )
    assert inside.amax(0).min() > 0.2
    for which in range(len(KINDS)):
        assert (pieces.kind[pieces.present] == which).sum() > 30
    assert pieces.present.sum(1).float().mean() > 4
    first = (
        pieces.present[:, :, None]
        & pieces.present[:, None]
        & ~torch.eye(pieces.kind.shape[1]).bool()
    )
    gap = (pieces.centre[:, :, None] - pieces.centre[:, None])[..., :2].norm(dim=-1)
    floor = (pieces.centre[..., 2] == 0)[:, :, None] & (pieces.centre[..., 2] == 0)[:, None]
    thinner = pieces.size[..., :2].amin(-1)
    assert (gap >= (thinner[:, :, None] + thinner[:, None]) / 2 - 1e-4)[first & floor].all()


def test_shadows_agree_with_marching_to_the_lamp():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(3, 1, 500, generator=generator) * torch.tensor([4.0, 4, 0.5])[:, None, None]
    lamp = torch.tensor([[2.0, 2.0, 2.5]])
    angles, halves = (30.0, 0.0), ((0.5, 0.3, 0.1), (0.4, 0.4, 0.4))
    both = [
        box(centre=(1.5 * k, 1.0 * k, 0.9), half=halves[k - 1], degrees=angles[k - 1])
        for k in (1, 2)
    ]
    casters = Boxes(*(torch.cat(of) for of in zip(*both, strict=True)))
    way = points + (lamp.T[..., None] - points) * torch.linspace(0.002, 1, 1500)[:, None]
    inside = []
    for each, degrees in enumerate(angles):
        x, y, z = way - casters.centre[each, :, None, None]
        back = torch.complex(x, y) * complex(
            math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))
        )
        away = torch.stack((back.real, back.imag, z)).abs()
        inside.append((away < casters.half[each, :, None, None]).all(0).any(0))
    for there in ([True, True], [False, True], [True, False], [False, False]):
        dark = shaded(points, lamp, casters, torch.tensor([there]))[0]
        marched = (inside[0] & there[0]) | (inside[1] & there[1])
        assert (marched == dark).float().mean() > 0.99 and (dark.float().mean() > 0.05) == any(
            there
        )


def surface(**given):
    """One material that is grey and plain but for what is given."""
    plain = {
        "width": 1000,
        "height": 1000,
        "joint": 0,
        "alternate": 0,
        "shift": 0,
        "tone": 0,
        "cloud": 0,
        "salt": 0,
    }
    values = {**plain, "glow": 0, **given}
    pair = torch.tensor([[[[0.5]]] * 3, [[[0.1]]] * 3])
    return Materials(*pair, *(torch.tensor([[float(of)]]) for of in values.values()))


def at(across, along):
    across, along = (torch.tensor([of]) for of in (across, along))
    return Hits(across, across.expand(3, 1, -1), across, along, across.long())


def test_patterns_have_their_size_in_metres():
    fine = torch.tensor(1e-3)
    steps = (torch.arange(400) * 0.01 - 1.9953).tolist()
    stripes = colours(at(steps, [0.3] * 400), surface(width=0.25, alternate=1), fine)[0, 0]
    assert stripes.unique().tolist() == pytest.approx([0.1, 0.5])
    assert (stripes.diff() != 0).nonzero()[:, 0].diff().float().mean().item() == pytest.approx(
        25, abs=0.1
    )
    upwards = colours(at([0.3] * 400, steps), surface(width=0.25, alternate=1), fine)
    assert (upwards == upwards[..., :1]).all()
    tiles = colours(at(steps, [0.0] * 400), surface(width=0.5, height=0.5, joint=0.05), fine)[0, 0]
    assert (tiles < 0.3).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_patterns_finer_than_a_pixel_are_even():
    steps = (torch.arange(99) * 0.0137).tolist()
    grey = colours(
        at(steps, steps), surface(width=0.02, height=0.02, alternate=1, tone=1), torch.tensor(0.2)
    )
    assert grey.allclose(torch.tensor(0.3))


def test_exposure_undoes_the_strength_of_the_light_but_not_glass():
    generator = torch.Generator().manual_seed(0)
    reflected = torch.rand(3, 5, 400, generator=generator) * 0.5
    glow = torch.zeros(5, 400)
    glow[:, 1:13] = 1
    keys = torch.arange(5)
    pictures = [
        exposed(reflected * (1 + (glow == 0) * more), glow, KeyedRandom(keys), keys).int()
        for more in (0, 7)
    ]
    assert (pictures[0] - pictures[1]).abs()[..., 13:].max() <= 1
    assert pictures[0][..., 1:13].equal(pictures[1][..., 1:13])
    middle = pictures[0][:, 1, 13:].float().median(1).values
    assert middle.min() > 60 and middle.max() < 190
