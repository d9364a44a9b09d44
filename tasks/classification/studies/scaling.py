"""Scaling: laws of accuracy against DoF, fitted to several models, and their predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from lincon.tasks.experiments.training.models import dof_of
from lincon.tasks.experiments.training.run import Run

Points = Mapping[str, tuple[np.ndarray, np.ndarray]]


def scaling(sweep: Sweep, predict: float | None = None) -> Result:
    """Train every cell, fit the laws to each model's runs, and write table, numbers and picture.

    ``predict`` is a DoF at which to predict each model's accuracy, within the fitted range.

    Raises:
        LinconError: fewer DoF than a law needs, or a prediction outside the fitted range.
    """
    _check(sweep, predict)  # before hours of training, not after
    runs = sweep.run()
    schemes = ", ".join(dict.fromkeys(cell.scheme for cell in sweep.cells))
    title = f"{schemes}: {sweep.title}"
    result = summarise(runs, title, len(sweep.data.test_set), predict)
    result.write(sweep, runs)
    return result


def _check(sweep: Sweep, predict: float | None) -> None:
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


def summarise(runs: Sequence[Run], title: str, images: int, predict: float | None = None) -> Result:
    """The result of some runs.

    ``images``: number of test images. Smaller errors than theirs cannot be told from none.
    """
    points = by_model(runs)
    fits: dict[str, dict[str, Fit]] = {}
    unseen: dict[str, list[tuple[float, float, float]]] = {}
    for model, (dof, accuracy) in points.items():
        fits[model] = {law: fit(law, dof, accuracy, images) for law in LAWS}
        unseen[model] = held_out("power", dof, accuracy, images)
    powers = {model: laws["power"] for model, laws in fits.items()}
    rows, table = [], lines(runs, MEASURES)
    for line in table:
        accuracy_text = with_spread(*line.measures["accuracy"])
        rows.append((line.model, f"{line.dof:,}", f"{line.total:,}", accuracy_text))
    notes = [_laws(model, laws) for model, laws in fits.items()]
    notes += [_held_out(model, left) for model, left in unseen.items()]
    notes += [_difference(a, powers[a], b, powers[b]) for a, b in combinations(powers, 2)]
    if predict is not None:
        notes += [_prediction(model, power, predict) for model, power in powers.items()]
    header = ("model", "dof", "total parameters", "accuracy %")
    picture_of_laws = picture(points, powers, title)
    numbers = {"table": [asdict(line) for line in table], **_numbers(fits, unseen)}
    return Result(title, header, rows, numbers, picture_of_laws, notes)


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


def by_model(runs: Sequence[Run]) -> Points:
    """The (dof, accuracy) of all runs of each model."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.model, []).append(run)
    return {
        model: (np.array([run.dof for run in group], float), np.array([run.score for run in group]))
        for model, group in groups.items()
    }


def _laws(model: str, laws: Mapping[str, Fit]) -> str:
    descriptions = []
    for name, fitted in laws.items():
        values = []
        for parameter, value in fitted.parameters.items():
            low, high = fitted.intervals[parameter]
            values.append(f"{parameter} {value:.3g} [{low:.3g}, {high:.3g}]")
        descriptions.append(
            f"{name}: {', '.join(values)}, rms {100 * fitted.residual:.2f} points, "
            f"AIC {fitted.aic:.1f}"
        )
    return (
        f"{model}, fitted (95 % bootstrap intervals): {'; '.join(descriptions)}. "
        f"Lowest AIC: {best(laws.values()).law}."
    )


def _held_out(model: str, left: Sequence[tuple[float, float, float]]) -> str:
    predictions = ", ".join(
        f"{dof:,.0f}: {100 * predicted:.2f} for {100 * observed:.2f}"
        for dof, predicted, observed in left
    )
    rule = "accuracy % at each DoF predicted by the power law fitted without it"
    return f"{model}, {rule}: {predictions}."


def _difference(a: str, first: Fit, b: str, second: Fit) -> str:
    difference = compare_exponents(first, second)
    verdict = "not told apart" if difference.equal else "different"
    interval = f"{difference.difference:.3f} [{difference.low:.3f}, {difference.high:.3f}]"
    return f"Exponents of {a} and {b}: differ by {interval}, {verdict} at 95 %."


def _prediction(model: str, fitted: Fit, dof: float) -> str:
    value, low, high = fitted.predict(dof)
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]"
    return f"{model} at {dof:,.0f} DoF, predicted by its power law: {100 * value:.2f} % {interval}."
