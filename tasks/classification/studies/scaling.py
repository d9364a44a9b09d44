"""Scaling: accuracy against DoF for several models, laws fitted to it, exponents compared, unseen DoF predicted."""

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
from lincon.tasks.experiments.training.training import Run, dof_of

Points = Mapping[str, tuple[np.ndarray, np.ndarray]]


def scaling(sweep: Sweep, predict: float | None = None) -> Result:
    """Train every cell, fit the laws to each model's runs, and write table, numbers and picture.

    ``predict``: a DoF at which each model's accuracy is predicted; refused outside the fitted
        range.

    Raises:
        LinconError: fewer DoF than a law needs, or a prediction outside of what was fitted.
    """
    data = sweep.data
    for model in dict.fromkeys(
        cell.model for cell in sweep.cells
    ):  # before hours of training, not after
        dofs = {dof_of(cell, data.shape) for cell in sweep.cells if cell.model == model}
        if len(dofs) < 4:
            raise LinconError(
                f"scaling fits laws to at least 4 values of --dof; of {model}'s {len(dofs)} are "
                "distinct."
            )
        if predict is not None and not min(dofs) <= predict <= max(dofs):
            raise LinconError(
                f"--predict {predict:g} is outside of {model}'s {min(dofs):,} to {max(dofs):,} DoF."
            )
    runs = sweep.run()
    schemes = ", ".join(dict.fromkeys(cell.scheme for cell in sweep.cells))
    result = summarise(runs, f"{schemes}: {sweep.title}", len(data.test_set), predict)
    result.write(sweep, runs)
    return result


def summarise(runs: Sequence[Run], title: str, images: int, predict: float | None = None) -> Result:
    """``images``: in the test set, which bounds how small an error can be told from none."""
    points = by_model(runs)
    fits = {
        model: {law: fit(law, dof, acc, images) for law in LAWS}
        for model, (dof, acc) in points.items()
    }
    powers = {model: laws["power"] for model, laws in fits.items()}
    table = lines(runs, MEASURES)
    rows = [
        (e.model, f"{e.dof:,}", f"{e.total:,}", with_spread(*e.measures["accuracy"])) for e in table
    ]
    numbers: dict[str, Any] = {
        "fits": {
            model: {law: as_json(one) for law, one in laws.items()} for model, laws in fits.items()
        },
        "best": {model: best(list(laws.values())).law for model, laws in fits.items()},
        "held_out": {
            model: held_out("power", dof, acc, images) for model, (dof, acc) in points.items()
        },
    }
    notes = [_laws(model, laws) for model, laws in fits.items()]
    notes += [_held_out(model, numbers["held_out"][model]) for model in fits]
    notes += [_difference(a, powers[a], b, powers[b]) for a, b in combinations(powers, 2)]
    if predict is not None:
        notes += [_prediction(model, one, predict) for model, one in powers.items()]
    header = ("model", "dof", "total parameters", "accuracy %")
    return Result(title, header, rows, numbers, picture(points, powers, title), notes)


def by_model(runs: Sequence[Run]) -> Points:
    """The (dof, accuracy) of all runs of each model."""
    models = dict.fromkeys(run.model for run in runs)
    chosen = {model: [run for run in runs if run.model == model] for model in models}
    return {
        m: (np.array([r.dof for r in rs], float), np.array([r.score for r in rs]))
        for m, rs in chosen.items()
    }


def _laws(model: str, laws: Mapping[str, Fit]) -> str:
    said = []
    for name, one in laws.items():
        values = ", ".join(
            f"{key} {value:.3g} [{one.intervals[key][0]:.3g}, {one.intervals[key][1]:.3g}]"
            for key, value in one.parameters.items()
        )
        said.append(f"{name}: {values}, rms {100 * one.residual:.2f} points, AIC {one.aic:.1f}")
    return f"{model}, fitted (95 % bootstrap intervals): {'; '.join(said)}. Lowest AIC: {best(laws.values()).law}."


def _held_out(model: str, left: Sequence[tuple[float, float, float]]) -> str:
    said = ", ".join(
        f"{dof:,.0f}: {100 * guess:.2f} for {100 * seen:.2f}" for dof, guess, seen in left
    )
    return f"{model}, accuracy % at each DoF predicted by the power law fitted without it: {said}."


def _difference(a: str, first: Fit, b: str, second: Fit) -> str:
    told = compare_exponents(first, second)
    verdict = "not told apart" if told.equal else "different"
    interval = f"[{told.low:.3f}, {told.high:.3f}]"
    return (
        f"Exponents of {a} and {b}: differ by {told.difference:.3f} {interval}, {verdict} at 95 %."
    )


def _prediction(model: str, one: Fit, dof: float) -> str:
    value, low, high = one.predict(dof)
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]"
    return f"{model} at {dof:,.0f} DoF, predicted by its power law: {100 * value:.2f} % {interval}."
