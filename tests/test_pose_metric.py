"""Pose: heat-maps there and back, PCKh by hand, skeletons where they belong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lincon import LinconError
from lincon.tasks.pose.drawing import COLOURS, skeleton_on
from lincon.tasks.pose.heatmaps import decode, targets, unmirrored, with_background
from lincon.tasks.pose.pckh import GROUPS, PCKh
from lincon.tasks.pose.skeleton import JOINTS, MIRRORED

CPM = (9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5)  # the fourteen parts of Wei et al. 2016


def one(x, y):
    """One joint of one person in one picture."""
    return torch.tensor([[[[float(x), float(y)]]]]), torch.ones(1, 1, 1, dtype=torch.bool)


# Targets.


def test_a_target_is_a_gaussian_of_peak_1_in_cells():
    maps = targets(*one(8 * 5 + 3.5, 8 * 4 + 3.5), (9, 12), 8)
    assert maps.shape == (1, 1, 9, 12) and maps.dtype == torch.float32
    assert maps[0, 0, 4, 5] == 1
    assert maps[0, 0, 4, 6] == pytest.approx(0.6065307) and maps[0, 0, 3, 5] == pytest.approx(
        0.6065307
    )
    assert maps[0, 0, 5, 7] == pytest.approx(0.0820850)  # exp(-(1 + 4) / 2)
    assert maps[0, 0, 4, 8] == pytest.approx(0.0111090)  # at three sigma
    assert maps[0, 0, 1, 6] == 0 and maps[0, 0, 4, 9] == 0
    assert (maps > 0).sum() == 29  # points of the square lattice within 3 of one of them


def test_the_width_is_in_cells_whatever_the_stride():
    maps = targets(*one(20.5, 20.5), (12, 12), 4, sigma=2)
    row = [math.exp(-((u - 4.75) ** 2 + (5 - 4.75) ** 2) / 8) for u in range(12)]
    assert maps[0, 0, 5].tolist() == pytest.approx(
        [value if u < 11 else 0 for u, value in enumerate(row)]
    )


def test_the_centre_is_not_rounded_to_a_cell():
    maps = targets(
        *one(4, 3.5), (3, 3), 8
    )  # a sixteenth of a cell right of the first cell's centre
    assert maps[0, 0, 0].tolist() == pytest.approx(
        [math.exp(-(d**2) / 2) for d in (0.0625, 0.9375, 1.9375)]
    )


def test_targets_are_those_of_the_definition():
    generator = torch.Generator().manual_seed(1)
    joints = torch.rand(2, 3, 4, 2, generator=generator) * 40 - 4
    known = torch.rand(2, 3, 4, generator=generator) > 0.3
    expected = np.zeros((2, 4, 7, 9))
    for n, person, k in known.nonzero().tolist():
        x, y = ((joints[n, person, k] - 1.5) / 4).tolist()
        for row, column in np.ndindex(7, 9):
            distance = math.hypot(column - x, row - y)
            value = math.exp(-(distance**2) / (2 * 1.5**2)) if distance <= 4.5 else 0
            expected[n, k, row, column] = max(expected[n, k, row, column], value)
    np.testing.assert_allclose(targets(joints, known, (7, 9), 4, 1.5), expected, atol=1e-6)


def test_unknown_joints_leave_no_trace_and_the_nearest_person_counts():
    joints = torch.tensor([[[[3.5, 3.5]], [[35.5, 3.5]], [[torch.nan, 19.5]]]])
    known = torch.tensor([[[True], [True], [False]]])
    maps = targets(joints, known, (1, 5), 8)
    assert maps[0, 0, 0].tolist() == pytest.approx([1, 0.6065307, 0.1353353, 0.6065307, 1])
    assert targets(joints, torch.zeros_like(known), (1, 5), 8).count_nonzero() == 0
    assert targets(joints[:, :0], known[:, :0], (1, 5), 8).equal(torch.zeros(1, 1, 1, 5))


def test_a_joint_outside_the_picture_shows_its_flank():
    maps = targets(*one(-4.5, 3.5), (1, 4), 8)
    assert maps[0, 0, 0].tolist() == pytest.approx([0.6065307, 0.1353353, 0.0111090, 0])


def test_the_background_is_what_no_joint_claims():
    maps = torch.tensor([[[[0.25, 0.0]], [[1.0, 0.0]], [[0.5, 0.75]]]])
    assert with_background(maps).equal(
        torch.tensor([[[[0.25, 0.0]], [[1.0, 0.0]], [[0.5, 0.75]], [[0.0, 0.25]]]])
    )


# Decoding.

places = st.floats(0, 1, exclude_max=True, width=32)


@given(
    st.lists(st.tuples(places, places), min_size=1, max_size=8),
    st.sampled_from([2, 4, 8]),
    st.sampled_from([1, 2]),
)
def test_decoded_targets_are_the_joints_within_a_quarter_of_a_cell(drawn, stride, sigma):
    height, width = 12, 16
    size = torch.tensor([stride * width, stride * height])
    joints = torch.tensor(drawn)[None, None] * size - 0.5
    points, peaks = decode(
        targets(joints, torch.ones(joints.shape[:-1]), (height, width), stride, sigma), stride
    )
    inner = (joints[:, 0] > stride - 0.5) & (joints[:, 0] < size - stride - 0.5)
    bound = torch.where(inner, stride / 4, stride / 2) + 1e-3 * stride
    assert ((points - joints[:, 0]).abs() <= bound).all()
    assert peaks.min() >= math.exp(-0.25 / sigma**2) - 1e-4  # half a cell away in x and in y


def decoded(rows, stride=1):
    points, peaks = decode(torch.tensor([[rows]], dtype=torch.float32), stride)
    return points[0, 0].tolist(), peaks.item()


def test_the_peak_moves_a_quarter_cell_to_the_higher_neighbour():
    rows = [[0, 0, 0, 0], [0, 0, 3, 0], [0, 2, 9, 4], [0, 0, 1, 0]]
    assert decoded(rows) == ([2.25, 1.75], 9)
    assert decoded(rows, 2) == ([2 * 2.25 + 0.5, 2 * 1.75 + 0.5], 9)
    assert decoded(rows, 8) == ([21.5, 17.5], 9)
    assert decoded([[0, 0, 0], [4, 9, 1], [0, 0, 0]]) == ([0.75, 1], 9)


def test_at_a_border_the_peak_does_not_move_towards_it_or_from_it():
    assert decoded([[0, 0, 0], [9, 5, 0], [1, 0, 0]]) == ([0, 1.25], 9)
    assert decoded([[0, 0, 0], [0, 5, 9], [1, 0, 0]]) == ([2, 1], 9)
    assert decoded([[2, 9, 3], [0, 5, 0]]) == ([1.25, 0], 9)
    assert decoded([[0, 7, 0], [3, 9, 2]]) == ([0.75, 1], 9)
    assert decoded([[9]]) == ([0, 0], 9)


def test_a_flat_map_and_one_with_nan_are_read_as_the_corner():
    assert decoded([[0, 0, 0]] * 3, 8) == ([3.5, 3.5], 0)
    assert decoded([[0, 0, 0], [0, 9, torch.nan], [0, 0, 0]], 8) == ([3.5, 3.5], 0)
    both = torch.full((1, 2, 3, 3), torch.nan)
    both[0, 1] = torch.eye(3)[1] * torch.eye(3)[1][:, None]
    assert decode(both, 1)[0].tolist() == [[[0, 0], [1, 1]]]


# Mirrored pictures.


def quarters(*shape, seed=0):
    """Joints at quarters of a pixel in a picture of 96 by 64, which mirroring moves without rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 64 * 4 + 8, (*shape, 2), generator=generator) / 4


@pytest.mark.parametrize("parts", [tuple(range(16)), CPM, (6, 7)])
@pytest.mark.parametrize("stride", [4, 8])
def test_maps_of_mirrored_joints_brought_back_are_the_maps_of_the_joints(parts, stride):
    joints, known = quarters(3, 2, 16), torch.rand(3, 2, 16) > 0.2
    mirrored = joints[:, :, list(MIRRORED)]
    mirrored[..., 0] = 95 - mirrored[..., 0]
    parted, shape = list(parts), (64 // stride, 96 // stride)
    maps = targets(joints[:, :, parted], known[:, :, parted], shape, stride)
    other = targets(
        mirrored[:, :, parted], known[:, :, list(MIRRORED)][:, :, parted], shape, stride
    )
    assert unmirrored(other, parts).equal(maps)
    assert unmirrored(with_background(other), parts).equal(with_background(maps))


def test_mirroring_twice_changes_nothing():
    maps = torch.rand(2, 15, 6, 8)
    assert not unmirrored(maps, CPM).equal(maps)
    assert unmirrored(unmirrored(maps, CPM), CPM).equal(maps)


def test_left_and_right_change_places_by_name():
    maps = torch.arange(16.0)[None, :, None, None].expand(1, 16, 1, 2)
    for joint, source in enumerate(unmirrored(maps, tuple(range(16)))[0, :, 0, 0].int().tolist()):
        swapped = JOINTS[joint].replace("left", "?").replace("right", "left").replace("?", "right")
        assert JOINTS[source] == swapped


# PCKh.


def people(count, errors=None):
    """Predictions at (0, 0), joints at a distance to the right, all of them known, head size 10."""
    joints = torch.zeros(count, 16, 2)
    if errors is not None:
        joints[..., 0] = torch.as_tensor(errors)
    return (
        torch.zeros(count, 16, 2),
        joints,
        torch.ones(count, 16, dtype=torch.bool),
        torch.full((count,), 10.0),
    )


def scores(*batches, threshold=0.5):
    metric = PCKh(threshold)
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


def test_both_means_by_hand():
    # Three people have all joints, a fourth only a head top; of wrists, right ones are wrong in all, left ones in one;
    # the fourth's head top is wrong.
    errors = torch.zeros(4, 16)
    errors[:3, 10], errors[0, 15], errors[3, 9] = 99, 99, 99
    predicted, joints, known, head = people(4, errors)
    known[3] = torch.arange(16) == 9
    found = scores((predicted, joints, known, head))
    # Annotated: 13 joints three times and one four times, 43. Wrong: 3 + 1 + 1.
    assert found["pckh"] == pytest.approx(38 / 43)
    # Eleven joints at 1, right wrist 0 / 3, left wrist 2 / 3, head top 3 / 4.
    assert found["pckh_joints"] == pytest.approx((11 + 0 + 2 / 3 + 3 / 4) / 14)
    assert found["head"] == 0.75 and found["wrist"] == pytest.approx(1 / 3)
    assert [found[group] for group in ("shoulder", "elbow", "hip", "knee", "ankle")] == [1] * 5


def test_a_group_weighs_its_two_sides_alike():
    errors = torch.zeros(3, 16)
    errors[0, 0] = 99
    predicted, joints, known, head = people(3, errors)
    known[1:, 0] = False
    found = scores((predicted, joints, known, head))
    assert found["ankle"] == 0.5 and found["pckh"] == pytest.approx(39 / 40)


def test_half_a_head_away_is_correct_and_further_is_not():
    errors = torch.zeros(1, 16)
    errors[0, 9], errors[0, 10], errors[0, 15] = 5, 5.001, 4.999
    assert scores(people(1, errors))["head"] == 1 and scores(people(1, errors))["wrist"] == 0.5
    assert scores(people(1, errors), threshold=0.1)["head"] == 0


def test_distances_are_euclidean_and_measured_by_each_persons_own_head():
    predicted, joints, known, head = people(2)
    joints[:, 9] = torch.tensor([3.0, 4.0])
    head[1] = 9.9
    assert scores((predicted, joints, known, head))["head"] == 0.5


def test_pelvis_and_thorax_are_in_no_mean():
    errors = torch.zeros(1, 16)
    errors[0, 6:8] = 99
    assert set(scores(people(1, errors)).values()) == {1}


def test_unknown_joints_never_count_and_leave_their_group_without_a_number():
    errors = torch.zeros(2, 16)
    errors[:, [1, 4, 9]] = 99
    predicted, joints, known, head = people(2, errors)
    known[:, [1, 4]], known[1, 9], joints[:, 1] = False, False, torch.nan
    found = scores((predicted, joints, known, head))
    assert math.isnan(found["knee"]) and found["head"] == 0
    assert found["pckh"] == pytest.approx(22 / 23) and found["pckh_joints"] == pytest.approx(
        11 / 12
    )


def test_a_prediction_that_is_nan_is_wrong():
    predicted, joints, known, head = people(1)
    predicted[0, 9, 1] = torch.nan
    found = scores((predicted, joints, known, head))
    assert found["head"] == 0 and found["pckh"] == pytest.approx(13 / 14)


@pytest.mark.parametrize("size", [torch.nan, 0, -1, torch.inf])
def test_people_without_a_head_size_are_left_out(size):
    errors = torch.zeros(3, 16)
    errors[0, 9], errors[1] = 99, 3
    predicted, joints, known, head = people(3, errors)
    head[1] = size
    found = scores((predicted, joints, known, head))
    assert found["head"] == 0.5 and found["pckh"] == pytest.approx(27 / 28)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_of_nobody_there_is_no_score():
    for found in (scores(), scores(people(0))):
        assert list(found) == ["pckh", "pckh_joints", *GROUPS] and all(
            map(math.isnan, found.values())
        )


def test_several_updates_are_one_and_a_reset_forgets_them():
    generator = torch.Generator().manual_seed(2)
    predicted, joints = torch.rand(2, 30, 16, 2, generator=generator) * 12
    known, head = (
        torch.rand(30, 16, generator=generator) > 0.3,
        5 + 10 * torch.rand(30, generator=generator),
    )
    whole = predicted, joints, known, head
    parts = zip(*(tensor.split([7, 1, 22]) for tensor in whole), strict=True)
    assert scores(*parts) == scores(whole)
    right = (predicted - joints).double().square().sum(-1) <= (head.double() / 2).square()[:, None]
    scored = known & (torch.arange(16) // 2 != 3)
    assert scores(whole)["pckh"] == pytest.approx(
        (right & scored).sum().item() / scored.sum().item()
    )
    metric = PCKh()
    metric.update(*people(1, 99.0))
    metric.reset()
    metric.update(*whole)
    assert metric.compute()["pckh"].item() == scores(whole)["pckh"]


def test_processes_add_up():
    """What torchmetrics does with the states of two processes: the sum, not the mean of fractions."""
    metrics = PCKh(), PCKh()
    metrics[0].update(*people(3))
    metrics[1].update(*people(1, 99.0))
    merged = PCKh()
    merged.update(*people(0))
    for metric in metrics:
        merged.merge_state(metric)
    assert merged.compute()["pckh"] == 0.75


def test_the_way_from_targets_to_a_perfect_score():
    joints, known = quarters(4, 1, 16) * 0.7 + 8, torch.ones(4, 1, 16, dtype=torch.bool)
    points, _ = decode(targets(joints, known, (16, 24), 4), 4)
    assert (
        scores((points, joints[:, 0], known[:, 0], torch.full((4,), 3.0)))["pckh"] == 1
    )  # 1.5 > hypot(1, 1) pixels


# Drawing.

ACROSS = [100, 105, 108, 140, 150, 160, 124, 124, 125, 126, 60, 75, 100, 150, 178, 200]
DOWN = [235, 190, 145, 145, 188, 232, 143, 75, 58, 25, 140, 108, 78, 78, 105, 70]
SKELETON = torch.tensor([ACROSS, DOWN]).T.float()
GREY = Image.new("L", (256, 256), 128)


def pixel(image, joint):
    return image.getpixel(tuple(SKELETON[joint].int().tolist()))


def test_left_right_and_middle_have_their_colours_where_the_joints_are():
    drawn = skeleton_on(GREY, SKELETON)
    assert drawn.mode == "RGB" and drawn.size == GREY.size and GREY.getextrema() == (128, 128)
    for joint, name in enumerate(JOINTS):
        assert pixel(drawn, joint) == COLOURS.get(name.split()[0], COLOURS["middle"])
    assert drawn.getpixel((5, 5)) == (128, 128, 128)
    elbow, wrist = SKELETON[14], SKELETON[15]
    assert drawn.getpixel(tuple(((elbow + wrist) / 2).round().int().tolist())) == COLOURS["left"]


@pytest.mark.parametrize("missing", ["nan", "score"])
def test_a_missing_joint_takes_its_bones_along(missing):
    points, scores = SKELETON.clone(), torch.ones(16)
    if missing == "nan":
        points[15] = torch.nan
    else:
        scores[15] = 0
    drawn = skeleton_on(GREY, points, scores)
    assert pixel(drawn, 15) == (128, 128, 128) and drawn.getpixel((189, 87)) == (128, 128, 128)
    assert pixel(drawn, 14) == COLOURS["left"]


def test_missing_pelvis_and_thorax_are_put_between_hips_and_shoulders():
    points = SKELETON.clone()
    points[6:8] = torch.nan
    completed = SKELETON.clone()
    completed[6], completed[7] = (points[2] + points[3]) / 2, (points[12] + points[13]) / 2
    assert skeleton_on(GREY, points).tobytes() == skeleton_on(GREY, completed).tobytes()


def test_an_uncertain_joint_is_hollow_and_its_bone_dashed():
    scores = torch.ones(16)
    scores[15] = 0.2
    drawn = skeleton_on(GREY, SKELETON, scores)
    assert pixel(drawn, 15) == (128, 128, 128) and pixel(drawn, 14) == COLOURS["left"]
    steps = [SKELETON[14] + (SKELETON[15] - SKELETON[14]) * n / 100 for n in range(15, 85)]
    along = [drawn.getpixel(tuple(step.round().int().tolist())) for step in steps]
    assert COLOURS["left"] in along and (128, 128, 128) in along
    assert (
        skeleton_on(GREY, SKELETON, torch.full((16,), torch.nan)).getextrema() == ((128, 128),) * 3
    )


@pytest.mark.parametrize("ground", ["white", "black", COLOURS["left"], COLOURS["middle"]])
def test_a_thin_skeleton_stands_out_from_any_ground(ground):
    blank = Image.new("RGB", (256, 256), ground)
    drawn = skeleton_on(blank, SKELETON)
    for start, end in [(14, 15), (6, 7), (0, 1)]:
        place = ((SKELETON[start] + SKELETON[end]) / 2).round().int().tolist()
        near = [drawn.getpixel((place[0] + n, place[1])) for n in range(-4, 5)]
        grounds = torch.tensor(blank.getpixel((0, 0))).float()
        far = max(float((torch.tensor(each).float() - grounds).norm()) for each in near)
        assert far > 120
    assert float((np.asarray(drawn) != np.asarray(blank)).any(2).mean()) < 0.06


def test_joints_outside_of_the_picture_and_tiny_pictures_are_no_trouble():
    assert skeleton_on(Image.new("RGB", (3, 2)), SKELETON - 100).size == (3, 2)


# Bad input.

FIVE = torch.zeros(1, 5, 4, 4)
FOURTEEN = torch.zeros(2, 14, 2)
ALL = torch.ones(1, 1, 1)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            lambda: targets(torch.zeros(1, 16, 2), torch.ones(1, 16), (8, 8), 8),
            r"shape \(1, 16, 2\).*made of",
        ),
        (
            lambda: targets(torch.zeros(1, 1, 16, 2), torch.ones(1, 16), (8, 8), 8),
            r"known of shape \(1, 16\)",
        ),
        (
            lambda: targets(torch.zeros(1, 1, 1, 2), ALL, (8, 8), 8, sigma=0),
            "sigma 0: both must be positive",
        ),
        (lambda: decode(torch.zeros(16, 8, 8), 8), r"\(16, 8, 8\) cannot be decoded"),
        (lambda: decode(torch.zeros(1, 16, 0, 8), 8), "cannot be decoded"),
        (lambda: unmirrored(FIVE, (0, 5, 6)), "of 3 joints"),
        (lambda: unmirrored(FIVE, (0, 5, 6, 10)), "right wrist but not of the left wrist"),
        (lambda: PCKh(0), "threshold 0: it must be positive"),
        (
            lambda: PCKh().update(FOURTEEN, *people(2)[1:]),
            r"predicted of shape \(2, 14, 2\).*\(2, 16, 2\)",
        ),
        (lambda: PCKh().update(*people(2)[:3], *torch.ones(1, 2, 1)), r"head of shape \(2, 1\)"),
        (lambda: skeleton_on(GREY, SKELETON[:14]), r"\(14, 2\)"),
    ],
)
def test_bad_input_is_refused_by_name(act, says):
    with pytest.raises(LinconError, match=says):
        act()
