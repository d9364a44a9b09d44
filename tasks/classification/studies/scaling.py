"""Scaling: laws of the score against DoF, fitted to several models, and their predictions.

The score is a task's first measure, as a share of the best: the accuracy, or the part of eight bits
that a language model saves. The laws call it accuracy, and what it lacks error.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from lincon import LinconError
from lincon.tasks.classification.learner import MEASURES
from lincon.tasks.classification.studies.law_picture import picture
from lincon.tasks.classification.studies.laws import (
    LAWS,
    Fit,
    as_json,
    best,
    compare_exponents,
    fit,
    held_out,
)
from lincon.tasks.experiments.sweeps.report import Result, lines, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.task import Measure, find_task
from lincon.tasks.experiments.training.models import dof_of
from lincon.tasks.experiments.training.run import Run

Points = Mapping[str, tuple[np.ndarray, np.ndarray]]


def scaling(sweep: Sweep, predict: float | None = None) -> Result:
    """Train every cell, fit the laws to each model's runs, and write table, numbers and picture.

    ``predict`` is a DoF at which to predict each model's score, within the fitted range.

    Raises:
        LinconError: fewer DoF than a law needs, a prediction outside the fitted range, or a task
            whose score is no share of anything.
    """
    measure = find_task(sweep.recipe.task).measures[0]
    _check(sweep, measure, predict)  # before hours of training, not after
    runs = sweep.run()
    schemes = ", ".join(dict.fromkeys(cell.scheme for cell in sweep.cells))
    title = f"{schemes}: {sweep.title}"
    result = summarise(runs, title, len(sweep.data.test_set), predict, measure)
    result.write(sweep, runs)
    return result


def _check(sweep: Sweep, measure: Measure, predict: float | None) -> None:
    measure.of_share(1)  # refuses a measure that has no worst value
    dofs: dict[str, set[int]] = {}
    for cell in sweep.cells:
        dofs.setdefault(cell.model, set()).add(dof_of(cell, sweep.data.shape))
    for model, distinct in dofs.items():
        low, high = min(distinct), max(distinct)
        if len(distinct) < 4:
            raise LinconError(
                f"scaling fits laws to at least 4 values of --dof; of {model}'s {len(distinct)} "
                "are distinct."
            )
        if predict is not None and not low <= predict <= high:
            raise LinconError(
                f"--predict {predict:g} is outside of {model}'s {low:,} to {high:,} DoF."
            )


def summarise(
    runs: Sequence[Run],
    title: str,
    images: int,
    predict: float | None = None,
    measure: Measure = MEASURES[0],
) -> Result:
    """The result of some runs.

    Args:
        runs: of the models.
        title: of the table and the picture.
        images: number of test items. Smaller errors than theirs cannot be told from none.
        predict: a DoF, see `scaling`.
        measure: the score of the runs.
    """
    points = by_model(runs, measure)
    fits: dict[str, dict[str, Fit]] = {}
    unseen: dict[str, list[tuple[float, float, float]]] = {}
    for model, (dof, accuracy) in points.items():
        fits[model] = {law: fit(law, dof, accuracy, images) for law in LAWS}
        unseen[model] = held_out("power", dof, accuracy, images)
    powers = {model: laws["power"] for model, laws in fits.items()}
    rows = []
    for line in lines(runs, [measure]):
        score = with_spread(*line.measures[measure.name], digits=measure.digits)
        rows.append((line.model, f"{line.dof:,}", f"{line.total:,}", score))
    notes = [_laws(model, laws, measure) for model, laws in fits.items()]
    notes += [_held_out(model, left, measure) for model, left in unseen.items()]
    notes += [_difference(a, powers[a], b, powers[b]) for a, b in combinations(powers, 2)]
    if predict is not None:
        notes += [_prediction(model, power, predict, measure) for model, power in powers.items()]
    header = ("model", "dof", "total parameters", measure.label)
    error = "test error (%)" if measure.higher_is_better else f"test {measure.label}"
    picture_of_laws = picture(points, powers, title, error, measure.span)
    return Result(title, header, rows, _numbers(fits, unseen), picture_of_laws, notes)


def _numbers(
    fits: Mapping[str, Mapping[str, Fit]],
    unseen: Mapping[str, list[tuple[float, float, float]]],
) -> dict[str, Any]:
    """Plain JSON: fits, best law and predictions of unseen DoF by model."""
    numbers: dict[str, Any] = {"fits": {}, "best": {}, "held_out": dict(unseen)}
    for model, laws in fits.items():
        numbers["fits"][model] = {law: as_json(fitted) for law, fitted in laws.items()}
        numbers["best"][model] = best(laws.values()).law
    return numbers


def by_model(runs: Sequence[Run], measure: Measure = MEASURES[0]) -> Points:
    """The (dof, share of the best score) of all runs of each model."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.model, []).append(run)
    return {
        model: (
            np.array([run.dof for run in group], float),
            np.array([measure.share(run.score) for run in group]),
        )
        for model, group in groups.items()
    }


def _laws(model: str, laws: Mapping[str, Fit], measure: Measure) -> str:
    unit = "points" if measure.higher_is_better else measure.label
    descriptions = []
    for name, fitted in laws.items():
        residual = f"{measure.span * fitted.residual:.{measure.digits}f} {unit}"
        values = []
        for parameter, value in fitted.parameters.items():
            low, high = fitted.intervals[parameter]
            values.append(f"{parameter} {value:.3g} [{low:.3g}, {high:.3g}]")
        descriptions.append(f"{name}: {', '.join(values)}, rms {residual}, AIC {fitted.aic:.1f}")
    return (
        f"{model}, fitted (95 % bootstrap intervals): {'; '.join(descriptions)}. "
        f"Lowest AIC: {best(laws.values()).law}."
    )


def _held_out(model: str, left: Sequence[tuple[float, float, float]], measure: Measure) -> str:
    predictions = ", ".join(
        f"{dof:,.0f}: {_shown(measure, predicted)} for {_shown(measure, observed)}"
        for dof, predicted, observed in left
    )
    rule = f"{measure.label} at each DoF predicted by the power law fitted without it"
    return f"{model}, {rule}: {predictions}."


def _difference(a: str, first: Fit, b: str, second: Fit) -> str:
    difference = compare_exponents(first, second)
    verdict = "not told apart" if difference.equal else "different"
    interval = f"{difference.difference:.3f} [{difference.low:.3f}, {difference.high:.3f}]"
    return f"Exponents of {a} and {b}: differ by {interval}, {verdict} at 95 %."


def _prediction(model: str, fitted: Fit, dof: float, measure: Measure) -> str:
    value, low, high = (_shown(measure, share) for share in fitted.predict(dof))
    interval = f"[{low}, {high}]" if measure.higher_is_better else f"[{high}, {low}]"
    at = f"{model} at {dof:,.0f} DoF, predicted by its power law"
    return f"{at}: {measure.label} {value} {interval}."


def _shown(measure: Measure, share: float) -> str:
    """The score that a share of the best stands for, as text."""
    return f"{measure.of_share(share):.{measure.digits}f}"
