"""Figures of experiments: no more curves in a panel than can be told apart, and a place for every one."""

from collections import Counter

import pytest

from lincon.tasks.experiments.sweeps.against import against
from lincon.tasks.experiments.sweeps.curves import picture
from lincon.tasks.experiments.sweeps.figures import COLOURS, COLUMNS, CURVES, style
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

ACCURACY = Measure("accuracy", "accuracy %")


def run(scheme, dof, seed, best=0.9):
    curve = [best * epoch / 3 - 0.01 * seed for epoch in (1, 2, 3)]
    return Run(
        model="net",
        scheme=scheme,
        asked=dof,
        seed=seed,
        dof=100,
        total=200,
        file_bytes=1000,
        epoch_seconds=[1.0] * 3,
        train_loss=[1.0] * 3,
        test={"accuracy": curve},
        train={"accuracy": best},
    )


def runs(schemes, dofs, best=0.9):
    names = [f"scheme {number}" for number in range(schemes)]
    return [run(name, dof, seed, best) for name in names for dof in dofs for seed in range(3)]


def labels(axes):
    return [line.get_label() for line in axes.get_lines()]


@pytest.mark.parametrize("schemes", [1, 2, 8, 9, 15, 30])
@pytest.mark.parametrize("dofs", [[None], [0.1], [0.5, 0.1, 0.01, 0.002]])
def test_every_scheme_is_drawn_and_none_in_a_crowd(schemes, dofs):
    figure = picture(runs(schemes, dofs), "a title", ACCURACY)
    shown = [labels(axes) for axes in figure.axes]
    assert all(len(each) <= CURVES for each in shown)
    assert all(each[0] == "scheme 0" for each in shown)  # the reference is beside all others
    counts = Counter(label for each in shown for label in each)
    assert all(counts[f"scheme {number}"] == len(dofs) for number in range(1, schemes))
    assert figure.get_figwidth() <= 5 * COLUMNS


@pytest.mark.parametrize("best", [0.2, 0.81, 0.86, 0.95, 0.999, 1.0])
def test_an_axis_of_scores_has_ticks_up_to_the_best(best):
    figure = picture(runs(2, [0.1], best), "a title", ACCURACY)
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert len(ticks) >= 4 and max(ticks) >= min(100 * best, high) - 12


def test_no_two_curves_look_alike():
    looks = [(style(number)["color"], style(number)["linestyle"]) for number in range(28)]
    assert len(set(looks)) == 28 and len(COLOURS) == 7


def test_files_of_a_figure_are_the_same_each_time():
    first, again = (picture(runs(3, [0.1, 0.2]), "a title", ACCURACY) for _ in range(2))
    assert first.svg() == again.svg() and first.png() == again.png()


def test_scores_against_a_number_have_a_point_and_a_bar_for_each():
    curves = {"ring": {10: [80.0, 82.0], 20: [85.0, 85.0]}, "hash": {20: [70.0, 71.0]}}
    (axes,) = against(curves, "a title", "degrees of freedom", "accuracy (%)").axes
    points = [line.get_xydata().tolist() for line in axes.get_lines()]
    assert [[10.0, 81.0], [20.0, 85.0]] in points and [[20.0, 70.5]] in points
