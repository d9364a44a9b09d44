"""Losses and errors of depth and normals: numbers by hand, and what is not known does not count."""

import math

import numpy as np
import pytest
import torch

from lincon import LinconError
from lincon.tasks.indoor.errors import RESOLUTION, Errors
from lincon.tasks.indoor.losses import berhu, cosine, log_berhu

NAN, INF = math.nan, math.inf
LOSSES = pytest.mark.parametrize("loss", [berhu, log_berhu, cosine])


def scene(n=3, seed=1, unknown=0.3, size=6):
    """Predicted depth and normals, and a truth of which a part is not known."""
    generator = torch.Generator().manual_seed(seed)
    depths = 0.5 + 4 * torch.rand(2, n, size, size, generator=generator)
    normals = torch.nn.functional.normalize(
        torch.randn(2, n, 3, size, size, generator=generator), dim=2
    )
    hidden = torch.rand(2, n, size, size, generator=generator) < unknown
    true_normals = normals[1].masked_fill(hidden[1].unsqueeze(1), NAN)
    return depths[0], normals[0], depths[1].masked_fill(hidden[0], NAN), true_normals


def pair(loss, **options):
    depth, normals, true_depth, true_normals = scene(**options)
    return (normals, true_normals) if loss is cosine else (depth, true_depth)


def value_and_gradient(loss, predicted, target):
    predicted = predicted.clone().requires_grad_()
    value = loss(predicted, target)
    value.backward()
    return value.detach(), predicted.grad


# Losses.


def test_the_reverse_huber_loss_by_hand():
    # The largest error is 5, so c = 1: 0.5 and 1 count as they are, 3 and 5 as (9 + 1) / 2 and (25 + 1) / 2.
    value, gradient = value_and_gradient(
        berhu, torch.tensor([1.5, 1.0, 5.0, 7.0, 0.0]), torch.tensor([1, 2, 2, 2, NAN])
    )
    assert value.item() == (0.5 + 1 + 5 + 13) / 4
    assert gradient.tolist() == [0.25, -0.25, 0.75, 1.25, 0]  # c is a constant


def test_the_reverse_huber_loss_of_logarithms_by_hand():
    e = math.e
    target = torch.tensor([1.0, 1.0, 1.0, 0.0, -1.0, INF, NAN])
    value, gradient = value_and_gradient(
        log_berhu, torch.tensor([e**0.5, e**5, 1 / e**3, 7, 0, NAN, INF]), target
    )
    assert value.item() == pytest.approx((0.5 + 13 + 5) / 3)
    expected = [1 / e**0.5 / 3, 5 / e**5 / 3, -3 * e**3 / 3]
    assert gradient[:3].tolist() == pytest.approx(expected) and not gradient[3:].any()


def test_predictions_of_nothing_have_a_finite_logarithm():
    value, gradient = value_and_gradient(log_berhu, torch.tensor([0.0, -2.0, 1.0]), torch.ones(3))
    c = math.log(1000) / 5
    assert (
        value.item() == pytest.approx(2 * (25 * c**2 + c**2) / (2 * c) / 3)
        and gradient.isfinite().all()
    )


def test_one_minus_the_cosine_by_hand():
    predicted = torch.tensor(
        [[1.0, 0, 0], [0, 0, 1], [0, -1, 0], [0.6, 0, 0.8], [0, 0, 1]]
    ).T.reshape(1, 3, 1, 5)
    target = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [NAN, 0, 1]]).T.reshape(
        1, 3, 1, 5
    )
    value, gradient = value_and_gradient(cosine, predicted, target)
    assert value.item() == pytest.approx((0 + 1 + 2 + 0.2) / 4)
    assert (
        gradient[..., :4].tolist() == (-target[..., :4] / 4).tolist() and not gradient[..., 4].any()
    )


@LOSSES
@pytest.mark.parametrize("garbage", [0.0, -3.0, 1e30, INF, -INF, NAN])
def test_predictions_behind_the_mask_change_nothing(loss, garbage):
    predicted, target = pair(loss)
    value, gradient = value_and_gradient(loss, predicted, target)
    assert value.isfinite() and gradient.isfinite().all() and gradient.any()
    known = ~target.isnan()
    found = value_and_gradient(loss, predicted.where(known, garbage), target)
    assert torch.equal(found[0], value) and torch.equal(found[1], gradient)
    assert not found[1][~known].any()


@LOSSES
def test_where_nothing_is_known_there_is_no_loss_and_no_gradient(loss):
    predicted, target = pair(loss, unknown=1.1)
    for given in (predicted, torch.full_like(predicted, NAN)):
        value, gradient = value_and_gradient(loss, given, target)
        assert value.item() == 0 and not gradient.any() and not gradient.isnan().any()


@LOSSES
def test_of_the_truth_there_is_no_loss(loss):
    _, target = pair(loss, unknown=0)
    value, gradient = value_and_gradient(loss, target, target)
    assert value.item() == pytest.approx(0, abs=1e-6) and gradient.isfinite().all()


@LOSSES
def test_losses_are_means_over_what_is_known(loss):
    """Against their definitions, pixel by pixel."""
    predicted, target = (t.double().numpy() for t in pair(loss))
    if loss is cosine:
        known = ~np.isnan(target).any(1)
        expected = [
            1 - p @ t for p, t in zip(pixels(predicted, known), pixels(target, known), strict=True)
        ]
    else:
        p, t = predicted[~np.isnan(target)], target[~np.isnan(target)]
        errors = abs(np.log(p) - np.log(t)) if loss is log_berhu else abs(p - t)
        c = errors.max() / 5
        expected = [e if e <= c else (e * e + c * c) / (2 * c) for e in errors]
    assert loss(*pair(loss)).item() == pytest.approx(np.mean(expected), rel=1e-5)


def pixels(vectors, known):
    return np.moveaxis(vectors, 1, -1)[known]


@LOSSES
def test_a_wrong_number_shows_where_the_truth_is_known(loss):
    predicted, target = pair(loss, unknown=0)
    predicted[0, 0, 0] = NAN
    assert loss(predicted, target).isnan()


# Errors.


def errors(*scenes):
    metric = Errors()
    for each in scenes:
        metric.update(*each)
    return {name: value.item() for name, value in metric.compute().items()}


def row(*values):
    """(1, 1, m) depths, or (1, 3, 1, m) normals of vectors."""
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor.T[None, :, None] if tensor.ndim == 2 else tensor[None, None]


NORMALS = row(*[[0.0, 0, 1]] * 4)


def turned(*degrees):
    return row(
        *([math.sin(math.radians(angle)), 0, math.cos(math.radians(angle))] for angle in degrees)
    )


def test_every_error_of_depth_by_hand():
    found = errors((row(1.0, 2.4, 3.0, 9.0), NORMALS, row(1.0, 2.0, 4.0, NAN), NORMALS))
    assert found["depth_rmse"] == pytest.approx(math.sqrt((0.4**2 + 1) / 3))
    assert found["abs_rel"] == pytest.approx((0.2 + 0.25) / 3)
    assert found["delta"] == pytest.approx(2 / 3)  # 4 / 3 is too much


@pytest.mark.parametrize(
    ("depth", "within"), [(1.25, 0), (1.249, 1), (0.8, 0), (0.801, 1), (-1, 0), (0, 0), (NAN, 0)]
)
def test_depths_within_a_quarter_count_and_the_bound_does_not(depth, within):
    depths = torch.full((1, 1, 4), depth, dtype=torch.float64)
    assert errors((depths, NORMALS, torch.ones(1, 1, 4), NORMALS))["delta"] == within


def test_every_error_of_normals_by_hand():
    found = errors(
        (
            torch.ones(1, 1, 4),
            turned(60, 90, 180, 77),
            torch.ones(1, 1, 4),
            row(*[[0.0, 0, 1]] * 3, [0, NAN, 1]),
        )
    )
    assert found["angle_mean"] == pytest.approx(110) and found["angle_median"] == pytest.approx(90)
    assert found["normal_rmse"] == pytest.approx(
        math.sqrt((1 + 2 + 4) / 3)
    )  # chords of 60, 90 and 180 degrees


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle():
    found = errors((torch.ones(1, 1, 4), turned(10, 20, 30, 170), torch.ones(1, 1, 4), NORMALS))
    assert found["angle_median"] == pytest.approx(25)


def test_lengths_of_vectors_do_not_count():
    found = errors(
        (torch.ones(1, 1, 4), 7 * turned(60, 60, 60, 60), torch.ones(1, 1, 4), NORMALS / 3)
    )
    assert found["normal_rmse"] == pytest.approx(1) and found["angle_mean"] == pytest.approx(60)


def test_small_angles_are_exact_and_the_truth_has_no_error():
    assert errors((torch.ones(1, 1, 4), turned(*[1e-3] * 4), torch.ones(1, 1, 4), NORMALS))[
        "angle_mean"
    ] == pytest.approx(1e-3, rel=1e-4)
    assert errors((torch.ones(1, 1, 4), NORMALS, torch.ones(1, 1, 4), NORMALS)) == {
        "depth_rmse": 0,
        "normal_rmse": 0,
        "angle_mean": 0,
        "angle_median": 0,
        "abs_rel": 0,
        "delta": 1,
    }


def test_errors_are_those_of_the_definitions():
    depth, normals, true_depth, true_normals = (t.double().numpy() for t in scene())
    p, t = depth[~np.isnan(true_depth)], true_depth[~np.isnan(true_depth)]
    known = ~np.isnan(true_normals).any(1)
    found, true = pixels(normals, known), pixels(true_normals, known)
    angles = np.degrees(np.arccos((found * true).sum(1)))
    expected = {
        "depth_rmse": np.sqrt(((p - t) ** 2).mean()),
        "normal_rmse": np.sqrt(((found - true) ** 2).sum(1).mean()),
        "angle_mean": angles.mean(),
        "angle_median": pytest.approx(np.median(angles), abs=RESOLUTION / 2 + 1e-4),
        "abs_rel": (abs(p - t) / t).mean(),
        "delta": (np.maximum(p / t, t / p) < 1.25).mean(),
    }
    measured = errors(scene())
    assert measured.pop("angle_median") == expected.pop("angle_median")
    assert measured == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("garbage", [0.0, INF, NAN])
def test_predictions_behind_the_mask_are_not_seen(garbage):
    depth, normals, true_depth, true_normals = scene()
    hidden = (
        depth.masked_fill(true_depth.isnan(), garbage),
        normals.masked_fill(true_normals.isnan(), garbage),
    )
    assert errors((*hidden, true_depth, true_normals)) == errors(scene())


def test_several_updates_are_one_and_a_reset_forgets_them():
    whole = scene(n=8)
    parts = list(zip(*(tensor.split([5, 1, 2]) for tensor in whole), strict=True))
    assert errors(*parts) == pytest.approx(errors(whole), rel=1e-12)
    metric = Errors()
    metric.update(*scene(seed=2))
    metric.reset()
    metric.update(*whole)
    assert {name: value.item() for name, value in metric.compute().items()} == errors(whole)


def test_processes_add_up():
    """What torchmetrics does with the states of two processes."""
    merged = Errors()
    merged.update(*scene(n=5))
    other = Errors()
    other.update(*scene(n=2, seed=2))
    merged.merge_state(other)
    assert {name: v.item() for name, v in merged.compute().items()} == pytest.approx(
        errors(scene(n=5), scene(n=2, seed=2)), rel=1e-12
    )


def test_sums_do_not_lose_what_is_small():
    depth = torch.full((1, 512, 512), 2.0)
    depth[0, 0, 0] = 1e4
    normals = torch.ones(1, 3, 512, 512)
    found = errors((depth, normals, torch.ones_like(depth), normals))["depth_rmse"]
    assert found == pytest.approx(math.sqrt(((1e4 - 1) ** 2 + 512**2 - 1) / 512**2), rel=1e-12)


@pytest.mark.parametrize("wrong", [NAN, INF])
def test_a_prediction_that_is_no_number_counts_as_wrong(wrong):
    depth, normals = torch.ones(1, 1, 4), turned(0, 10, 20, 30)
    depth[0, 0, 0], normals[0, 1, 0, 0] = wrong, wrong
    found = errors((depth, normals, torch.ones(1, 1, 4), NORMALS))
    assert found["delta"] == 0.75 and found["angle_median"] == pytest.approx(25)  # 180 instead of 0
    for name in ("depth_rmse", "abs_rel", "normal_rmse", "angle_mean"):
        assert not math.isfinite(found[name])


def test_a_vector_without_a_direction_counts_as_wrong():
    found = errors((torch.ones(1, 1, 4), row(*[[0.0, 0, 0]] * 4), torch.ones(1, 1, 4), NORMALS))
    assert math.isnan(found["normal_rmse"]) and found["angle_median"] == 180


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_of_nothing_there_is_no_error():
    nothing = (
        torch.ones(2, 4, 4),
        torch.ones(2, 3, 4, 4),
        torch.full((2, 4, 4), NAN),
        torch.full((2, 3, 4, 4), NAN),
    )
    for found in (errors(), errors(nothing), errors(tuple(tensor[:0] for tensor in nothing))):
        assert len(found) == 6 and all(map(math.isnan, found.values()))


# Bad input.


ONES = torch.ones(2, 4, 4)
UP = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: berhu(ONES, UP), r"shape \(2, 4, 4\) for a target of shape \(2, 3, 4, 4\)"),
        (
            lambda: log_berhu(ONES[:, None], ONES),
            r"\(2, 1, 4, 4\) for a target of shape \(2, 4, 4\)",
        ),
        (lambda: cosine(UP[:, None], UP), "one sub-network's output at a time"),
        (
            lambda: Errors().update(ONES, UP, UP, UP),
            r"true_depth of shape \(2, 3, 4, 4\); it is \(n, height, width\)",
        ),
        (
            lambda: Errors().update(ONES[:1], UP, ONES, UP),
            r"depth of shape \(1, 4, 4\).*\(2, 4, 4\)",
        ),
        (
            lambda: Errors().update(ONES, ONES, ONES, UP),
            r"normals of shape \(2, 4, 4\).*\(2, 3, 4, 4\)",
        ),
        (
            lambda: Errors().update(ONES, UP, ONES, UP[:, :2]),
            r"true_normals of shape \(2, 2, 4, 4\)",
        ),
        (
            lambda: Errors().update(ONES, UP, 0 * ONES, UP),
            "true depth is not a positive finite.*by nan",
        ),
        (lambda: Errors().update(ONES, UP, INF * ONES, UP), "true depth is not a positive finite"),
        (
            lambda: Errors().update(ONES, UP, ONES, 0 * UP),
            "true normal is zero or infinite: mark.*by nan",
        ),
    ],
)
def test_bad_input_is_refused_by_name(act, says):
    with pytest.raises(LinconError, match=says):
        act()


def test_what_is_refused_is_not_counted():
    metric = Errors()
    metric.update(*scene())
    before = {name: value.item() for name, value in metric.compute().items()}
    with pytest.raises(LinconError):
        metric.update(ONES, UP, ONES, 0 * UP)
    assert {name: value.item() for name, value in metric.compute().items()} == before
