"""The data set of drawn figures: a function of seed and index, and joints that are where the pictures show them."""

import pytest
import torch

from lincon import LinconError
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.experiments.data.rotations import compose, rotation
from lincon.tasks.pose.data.anatomy import LENGTHS, VARIATION, bodies
from lincon.tasks.pose.data.clothing import NAMES
from lincon.tasks.pose.data.drawing import Boxes, Capsules, paint, paint_boxes
from lincon.tasks.pose.data.figures import Figures, person
from lincon.tasks.pose.skeleton import JOINTS, MIRRORED

SIZE = 64
BONES = {
    "shin": (("right ankle", "right knee"), ("left ankle", "left knee")),
    "thigh": (("right knee", "right hip"), ("left knee", "left hip")),
    "hip": (("right hip", "pelvis"), ("left hip", "pelvis")),
    "spine": (("pelvis", "thorax"),),
    "shoulder": (("right shoulder", "thorax"), ("left shoulder", "thorax")),
    "neck": (("thorax", "upper neck"),),
    "head": (("upper neck", "head top"),),
    "upper arm": (("right elbow", "right shoulder"), ("left elbow", "left shoulder")),
    "forearm": (("right wrist", "right elbow"), ("left wrist", "left elbow")),
}


def keys(n, seed=0):
    return torch.arange(n) * 7919 + seed


@pytest.fixture(scope="module")
def batch():
    return Figures(1000, seed=3)[list(range(200))]


def equal(one, other):
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_a_batch_is_what_it_says(batch):
    assert batch.images.shape == (200, 3, SIZE, SIZE) and batch.images.dtype == torch.uint8
    assert batch.joints.shape == (200, 2, 16, 2) and batch.joints.dtype == torch.float32
    assert batch.known.shape == (200, 2, 16) and batch.known.dtype == torch.bool
    assert batch.head.shape == (200,) and batch.head.dtype == torch.float32
    assert [of.shape for of in Figures(4, 0, 40, 3)[[2]]] == [
        (1, 3, 40, 40),
        (1, 3, 16, 2),
        (1, 3, 16),
        (1,),
    ]
    assert [len(of) for of in Figures(4, 0)[[]]] == [0, 0, 0, 0]


def test_a_figure_is_the_same_alone_in_any_batch_and_at_any_time(batch):
    figures = Figures(1000, seed=3)
    for index in (0, 31, 32, 100, 199):
        assert equal(figures[[index]], [of[index : index + 1] for of in batch])
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:77]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert equal(figures[order.tolist()], [of[order] for of in batch])
    assert torch.get_rng_state().equal(state)
    assert equal(Figures(10**15, seed=3)[[150]], [of[150:151] for of in batch])  # and costs no more


def test_other_seeds_and_indices_give_other_figures(batch):
    assert len(batch.images.flatten(1).unique(dim=0)) == 200
    for seed in (4, -3, 2**80):
        assert (Figures(9, seed)[[0]].images != batch.images[:1]).float().mean() > 0.9


def test_people_in_a_picture_do_not_change_with_how_many_there_may_be(batch):
    alone = Figures(1000, seed=3, people=1)[list(range(20))]
    assert alone.joints.equal(batch.joints[:20, :1]) and alone.head.equal(batch.head[:20])


def test_a_subset_is_those_figures(batch):
    part = Figures(1000, seed=3).subset(torch.tensor([7, 3, 150]))
    assert len(part) == 3 and equal(part[[2, 0]], [of[[150, 7]] for of in batch])
    assert equal(part.subset(torch.tensor([1]))[[0]], [of[3:4] for of in batch])
    with pytest.raises(LinconError, match="Picture 3 of 3 figures: choose from 0 to 2"):
        part[[3]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"count": 0}, "count=0: choose count from 1"),
        ({"size": 15}, "size=15: choose size from 16"),
        ({"people": 0}, "people=0: choose people from 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(LinconError, match=message):
        Figures(**{"count": 5, "seed": 0, **arguments})


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_out_of_range_is_named(index):
    for use in (
        lambda: Figures(5, 0)[[0, index]],
        lambda: Figures(5, 0).subset(torch.tensor([index])),
    ):
        with pytest.raises(LinconError, match=f"Picture {index} of 5 figures: choose from 0 to 4"):
            use()


def test_slots_of_people(batch):
    first, second = batch.known.unbind(1)
    assert first.all()
    present = second.any(1)
    assert second.equal(present[:, None].expand(-1, 16)) and 0.25 < present.float().mean() < 0.55
    assert (batch.joints[:, 1][~present] == 0).all() and (batch.joints[:, 1][present] != 0).any(
        -1
    ).all()
    crowd = Figures(200, 0, people=4)[list(range(200))].known[:, :, 0].sum(1)
    assert crowd.unique().tolist() == [1, 2, 3, 4]


def test_the_first_person_is_large_in_the_middle_and_inside(batch):
    joints = batch.joints[:, 0]
    low, high = joints.amin(1), joints.amax(1)
    extent = (high - low).amax(1) / SIZE
    assert extent.min() > 0.3 and extent.max() < 0.86 and 0.5 < extent.median() < 0.8
    assert ((low + high) / 2 - (SIZE - 1) / 2).abs().max() < 0.12 * SIZE
    assert ((joints > 0) & (joints < SIZE - 1)).float().mean() > 0.995
    assert joints[..., 1].mean(0).argsort()[0] == JOINTS.index("head top")


def test_head_size_is_plausible_and_in_pixels():
    heads = [Figures(100, 0, size)[list(range(100))].head / size for size in (64, 128)]
    assert heads[0].min() > 0.04 and heads[0].max() < 0.15 and 0.06 < heads[0].median() < 0.1
    assert heads[1].allclose(heads[0], rtol=1e-4)
    someone = person(keys(50), SIZE)
    bare = someone._replace(body=someone.body._replace(skull=torch.zeros(50)))
    neck, top = bare.joints()[:, 8], bare.joints()[:, 9]
    assert (bare.head_size() / 0.6).allclose((top - neck).norm(dim=1), atol=1e-4)
    assert (someone.head_size() > bare.head_size()).all()


def test_bones_have_their_lengths_in_space_and_at_most_these_in_the_picture():
    someone = person(keys(300), SIZE)
    space, picture = someone.body.joints, someone.joints()
    zoom = someone.view.zoom(space)
    nearest = zoom.amax(1)
    for name, pairs in BONES.items():
        for pair in pairs:
            start, end = (JOINTS.index(joint) for joint in pair)
            length = (space[:, start] - space[:, end]).norm(dim=1)
            assert length.min() > LENGTHS[name] * (1 - VARIATION) - 1e-4
            assert length.max() < LENGTHS[name] * (1 + VARIATION) + 1e-4
            seen = (picture[:, start] - picture[:, end]).norm(dim=1)
            # Of two points off the axis, perspective moves the nearer one outward.
            moved = (zoom[:, start] - zoom[:, end]).abs() * space[:, end, :2].norm(dim=1)
            assert (seen <= length * nearest + moved + 1e-3).all()
    seen, length = ((of[:, 10] - of[:, 11]).norm(dim=1) for of in (picture, space))
    foreshortened = seen / length / nearest
    assert foreshortened.min() < 0.25 and foreshortened.max() > 0.9


def test_elbows_and_knees_bend_the_right_way():
    body = bodies(KeyedRandom(keys(500)))
    for knee, hip, ankle, side in ((1, 2, 0, 0), (4, 3, 5, 1)):
        thigh, shin = (
            body.joints[:, knee] - body.joints[:, hip],
            body.joints[:, ankle] - body.joints[:, knee],
        )
        toe = body.toes[:, side] - body.joints[:, ankle]
        bent = (thigh * shin).sum(1) / (thigh.norm(dim=1) * shin.norm(dim=1)) < 0.95
        # Toes are before the shin, and a bent knee puts the foot behind the line of the thigh.
        assert ((thigh * toe).sum(1)[bent] > 0).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotations_are_orthogonal_and_add_up(axis):
    angles = torch.tensor([0.0, 90, -33, 200])
    turned = rotation(axis, angles)
    assert turned.mT.matmul(turned).allclose(torch.eye(3).expand(4, 3, 3), atol=1e-6)
    assert turned.det().allclose(torch.ones(4))
    assert compose(turned, rotation(axis, -angles)).allclose(torch.eye(3), atol=1e-6)
    assert compose(turned, turned).allclose(rotation(axis, 2 * angles), atol=2e-3)
    down, front = torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])
    source, target = (
        (down, front),
        (front, torch.tensor([1.0, 0, 0])),
        (down, torch.tensor([1.0, 0, 0])),
    )[axis]
    assert (turned[1] @ source).allclose(target, atol=1e-6)


def parts(*words):
    """Indices of the parts in whose names one of the words is."""
    return [index for index, name in enumerate(NAMES) if any(word in name for word in words)]


def shown(capsules, size, these, among=None):
    """Pictures (n, size, size) that are 1 where the parts ``these`` are seen ``among`` others (None: all), else 0."""
    colours = torch.zeros_like(capsules.colours)
    colours[:, these] = 1
    capsules = capsules._replace(colours=colours, rim=torch.zeros_like(capsules.rim))
    canvas = torch.zeros(len(colours), 3, size, size)
    paint(canvas, capsules if among is None else Capsules(*(of[:, among] for of in capsules)))
    return canvas[:, 0]


def at(picture, points):
    """Values (n, k) of pictures (n, size, size) at points (n, k, 2), and which of these are inside."""
    size = picture.shape[-1]
    places = points.round().long()
    inside = ((places >= 0) & (places < size)).all(-1)
    x, y = places.clamp(0, size - 1).unbind(-1)
    return picture[torch.arange(len(picture))[:, None], y, x], inside


def test_joints_are_on_the_limbs_that_meet_there():
    """Each limb painted alone, in large: its colour is at its joints, and a bone's length beyond them is none."""
    size = 256
    someone = person(keys(40), size)
    capsules, joints = someone.capsules(), someone.joints()
    limbs = {
        "shin": ("knee", "ankle"),
        "thigh": ("hip", "knee"),
        "upper arm": ("shoulder", "elbow"),
    }
    limbs["forearm"] = ("elbow", "wrist")
    for side in ("right", "left"):
        for limb, ends in limbs.items():
            part = parts(f"{side} {limb}")
            alone = shown(capsules, size, part, part)
            start, end = (joints[:, JOINTS.index(f"{side} {end}")] for end in ends)
            for point in (start, end, (start + end) / 2):
                colour, inside = at(alone, point[:, None])
                assert inside.sum() > 30 and (colour[inside] == 1).all()
            beyond, inside = at(alone, torch.stack((2 * end - start, 2 * start - end), 1))
            far = inside & ((end - start).norm(dim=1) > 0.08 * size)[:, None]
            assert far.sum() > 20 and (beyond[far] == 0).all()
    head = shown(capsules, size, parts("head", "hair", "neck"), parts("head", "hair", "neck"))
    for point in (joints[:, 8], joints[:, 9] * 0.9 + joints[:, 8] * 0.1):
        colour, inside = at(head, point[:, None])
        assert (colour[inside] == 1).all()
    above, inside = at(head, (1.4 * joints[:, 9] - 0.4 * joints[:, 8])[:, None])
    upright = (joints[:, 8] - joints[:, 9]).norm(dim=1) > 0.08 * size
    assert (above[inside & upright[:, None]] == 0).all()


def test_the_nearer_limb_hides_the_farther():
    size = 128
    someone = person(keys(200), size)
    arms, trunk = (
        shown(someone.capsules(), size, these)
        for these in (parts("arm", "hand", "watch"), parts("flank", "belly", "shoulders"))
    )
    wrists = someone.body.joints[:, [10, 15]]
    (arm, inside), (cloth, _) = (
        at(picture, someone.joints()[:, [10, 15]]) for picture in (arms, trunk)
    )
    belly = someone.body.joints[:, [6, 7]].mean(1)
    across = (wrists[..., :2] - belly[:, None, :2]).norm(dim=-1) < 0.1
    before, behind = (
        wrists[..., 2] > belly[:, None, 2] + 0.1,
        wrists[..., 2] < belly[:, None, 2] - 0.1,
    )
    before, behind = before & inside & across, behind & inside & across
    assert before.sum() > 10 and arm[before].mean() > 0.95 and cloth[before].mean() < 0.05
    assert behind.sum() > 5 and arm[behind].mean() < 0.2 and cloth[behind].mean() > 0.7


def test_faces_are_seen_from_the_front_alone():
    size = 256
    someone = person(keys(200), size)
    facing = someone.body.head[:, 2, 2]
    for name in ("right eye", "left eye"):
        there = shown(someone.capsules(), size, parts(name)).flatten(1).amax(1) > 0.5
        assert not there[facing < -0.5].any()
        assert there[facing > 0.7].float().mean() > 0.8  # an arm may be before it


def test_left_is_at_the_right_of_those_who_face_the_viewer():
    someone = person(keys(300), SIZE)
    facing, joints = someone.body.pelvis[:, 2, 2], someone.joints()
    for right, left in ((2, 3), (12, 13)):
        assert (joints[facing > 0.6, left, 0] > joints[facing > 0.6, right, 0]).all()
        assert (joints[facing < -0.6, left, 0] < joints[facing < -0.6, right, 0]).all()
    assert 0.4 < (facing > 0).float().mean() < 0.6


def test_a_mirrored_picture_is_another_person():
    """The mirror image has a right that is a left: someone who lifts the right arm is not one who lifts the left."""
    someone = person(keys(100), SIZE)
    picture = torch.zeros(100, 3, SIZE, SIZE)
    paint(picture, someone.capsules())
    mirrored = someone.joints()[:, list(MIRRORED)]
    mirrored[..., 0] = SIZE - 1 - mirrored[..., 0]
    assert (picture.flip(3) - picture).abs().amax((1, 2, 3)).min() > 0.1
    assert ((mirrored - someone.joints()).norm(dim=-1).mean(1) > 1).all()


def capsule(start, end, radii, colours=(1.0, 1.0), change=0.5, rim=0.0, depth=0.0):
    colours = torch.tensor(colours)[:, None].expand(2, 3)
    values = (torch.tensor(start), torch.tensor(end), torch.tensor(radii), colours)
    return Capsules(
        *(of.float()[None, None] for of in (*values, *map(torch.tensor, (change, rim, depth))))
    )


def test_a_capsule_covers_the_area_of_a_capsule():
    canvas = torch.zeros(1, 3, 64, 64)
    paint(canvas, capsule((20.3, 14.2), (38.1, 40.7), (6.0, 6.0)))
    length = ((38.1 - 20.3) ** 2 + (40.7 - 14.2) ** 2) ** 0.5
    assert canvas[0, 0].sum().item() == pytest.approx(2 * 6 * length + torch.pi * 36, rel=0.01)
    assert canvas.max() == 1 and canvas.min() == 0
    disc = torch.zeros(1, 3, 64, 64)
    paint(disc, capsule((30.0, 30.0), (30.0, 30.0), (8.0, 8.0)))
    assert disc[0, 0].sum().item() == pytest.approx(torch.pi * 64, rel=0.01)


def test_a_capsule_changes_colour_and_thins():
    canvas = torch.zeros(1, 3, 64, 64)
    paint(
        canvas, capsule((10.0, 32.0), (50.0, 32.0), (8.0, 4.0), colours=(0.25, 0.75), change=0.25)
    )
    row = canvas[0, 0, 32]
    assert (row[10:19] == 0.25).all() and (row[22:50] == 0.75).all()
    widths = (canvas[0, 0] > 0).sum(0)
    assert widths[10] == 17 and widths[50] == 9 and widths[30] == 13


@pytest.mark.parametrize("start", [(-100.0, 20.0), (20.0, 200.0), (90.0, -90.0)])
def test_what_is_outside_of_the_picture_is_not_drawn(start):
    canvas = torch.zeros(1, 3, 32, 32)
    paint(canvas, capsule(start, start, (5.0, 5.0)))
    assert (canvas == 0).all()
    paint(canvas, capsule(start, (16.0, 16.0), (5.0, 5.0)))
    assert canvas[0, 0, 16, 16] == 1


def test_depth_is_the_order_whatever_the_place_in_the_list():
    for depths, expected in (((0.0, 1.0), 0.75), ((1.0, 0.0), 0.25)):
        both = [
            capsule((16.0, 16.0), (16.0, 16.0), (5.0, 5.0), (c, c), depth=d)
            for c, d in zip((0.25, 0.75), depths, strict=True)
        ]
        canvas = torch.zeros(1, 3, 32, 32)
        paint(canvas, Capsules(*(torch.cat(pair, 1) for pair in zip(*both, strict=True))))
        assert canvas[0, 0, 16, 16] == expected


def box(*values):
    return Boxes(*(torch.tensor([value]) for value in values))


def test_a_box_covers_its_area():
    canvas = torch.zeros(1, 3, 64, 64)
    paint_boxes(canvas, box((30.2, 33.1), (12.0, 5.0), (0.8, 0.6), (1.0, 0.5, 0.0)))
    assert canvas.sum((2, 3))[0].tolist() == pytest.approx([24 * 10, 12 * 10, 0], rel=0.02)
    kept = canvas.clone()
    paint_boxes(canvas, box((9.0, 9.0), (-1.0, -1.0), (1.0, 0.0), (1.0, 1.0, 1.0)))
    assert kept.equal(canvas)


def test_draws_are_uniform_and_each_key_has_its_own():
    draws = KeyedRandom(keys(2000))
    block = draws.uniform(-1, 3, 5, 4)
    assert block.shape == (2000, 5, 4) and block.min() >= -1 and block.max() < 3
    assert block.mean().item() == pytest.approx(1, abs=0.03)
    assert block.var().item() == pytest.approx(16 / 12, rel=0.03)
    assert block.flatten(1).T.corrcoef().fill_diagonal_(0).abs().max() < 0.12
    assert draws.index(3, 500).flatten().bincount().float().div(10**6).tolist() == pytest.approx(
        [1 / 3] * 3, abs=0.002
    )
    assert draws.happens(0.2, 500).float().mean().item() == pytest.approx(0.2, abs=0.002)
    again = KeyedRandom(keys(2000)[9:10])
    assert torch.cat([again.uniform(-1, 3) for _ in range(20)]).equal(block[9].flatten())
