"""Scaling: laws of the score against DoF, fitted to several models, and their predictions.

The score is a task's first measure, as a share of the best: the accuracy, or the part of eight bits
that a language model saves. The laws call it accuracy, and what it lacks error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import mean
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
from lincon.tasks.experiments.sweeps.picked import with_picked
from lincon.tasks.experiments.sweeps.report import Result, group_seeds, lines, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tune import tune
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
    measures = find_task(sweep.recipe.task).measures
    _check(sweep, measures[0], predict)  # before hours of training, not after
    sweep = tune(sweep)
    runs = sweep.run()
    schemes = ", ".join(dict.fromkeys(cell.scheme for cell in sweep.cells))
    title = f"{schemes}: {sweep.title}"
    result = summarise(runs, title, len(sweep.data.test_set), predict, measures)
    result = with_picked(result, sweep, [group[0] for group in group_seeds(runs)])
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
    measures: Sequence[Measure] = MEASURES,
) -> Result:
    """The result of some runs.

    Args:
        runs: of the models.
        title: of the table and the picture.
        images: number of test items. Smaller errors than theirs cannot be told from none.
        predict: a DoF, see `scaling`.
        measures: of the task; the first is the score.
    """
    score = measures[0]
    studies = {
        name: study(by_model(runs, response.of), response)
        for name, response in responses(runs, images, score).items()
    }
    shown = [measure for measure in measures if measure.name in studies]
    rows, table = [], lines(runs, shown)
    for line in table:
        texts = [with_spread(*line.measures[each.name], each.digits) for each in shown]
        rows.append((line.model, f"{line.dof:,}", f"{line.total:,}", *texts))
    notes = [note for each in studies.values() for note in each.notes(predict)]
    header = ("model", "dof", "total parameters", *(measure.label for measure in shown))
    first, *_ = studies.values()
    others = {name: each.numbers() for name, each in studies.items() if each is not first}
    figure = picture(first.points, first.powers, title, _error(score), score.span)
    numbers = {"table": [asdict(line) for line in table], **first.numbers(), **others}
    return Result(title, header, rows, numbers, figure, notes)


def _error(score: Measure) -> str:
    """What an axis says of the distance from the best score."""
    return "test error (%)" if score.higher_is_better else f"test {score.label}"


@dataclass(frozen=True)
class Response:
    """What laws are fitted to: 1 at the best, such as the share of a score, or 1 minus a loss.

    Args:
        label: of the measure, in notes.
        of: run -> the response.
        measure: the response -> the measure, in the unit of the label.
        images: of the test set; smaller errors than theirs cannot be told from none. None for a
            loss.
        digits: of the measure, after the point.
    """

    label: str
    of: Callable[[Run], float]
    measure: Callable[[float], float]
    images: int | None
    digits: int

    def shown(self, response: float) -> str:
        """The measure as text."""
        return f"{self.measure(response):.{self.digits}f}"


def responses(runs: Sequence[Run], images: int, score: Measure) -> dict[str, Response]:
    """By name, the score and, beside a score that counts items, the cross-entropy if all have it."""
    found = {
        score.name: Response(
            score.label, lambda run: score.share(run.score), score.of_share, images, score.digits
        )
    }
    if score.counts_items and all("cross_entropy" in run.test for run in runs):
        found["cross_entropy"] = Response(
            "cross-entropy",
            lambda run: 1 - run.test["cross_entropy"][-1],
            lambda y: 1 - y,
            images=None,
            digits=4,
        )
    return found


@dataclass(frozen=True)
class Study:
    """The laws of one response, by model.

    Args:
        response: of the runs.
        points: (dof, response) of all runs.
        fits: of every law.
        unseen: (dof, predicted, observed) at each DoF that the power law was fitted without.
    """

    response: Response
    points: Points
    fits: Mapping[str, Mapping[str, Fit]]
    unseen: Mapping[str, Sequence[tuple[float, float, float]]]

    @property
    def powers(self) -> dict[str, Fit]:
        """The power law of each model."""
        return {model: laws["power"] for model, laws in self.fits.items()}

    def numbers(self) -> dict[str, Any]:
        """Plain JSON: fits, best law and predictions of unseen DoF by model."""
        return {
            "fits": {
                model: {law: as_json(fitted) for law, fitted in laws.items()}
                for model, laws in self.fits.items()
            },
            "best": {model: best(laws.values()).law for model, laws in self.fits.items()},
            "held_out": {model: list(left) for model, left in self.unseen.items()},
        }

    def notes(self, predict: float | None = None) -> list[str]:
        """What a reader learns of the laws; ``predict`` is a DoF at which to predict."""
        notes = [
            _laws(f"{model}, {self.response.label}", laws) for model, laws in self.fits.items()
        ]
        notes += [self._held_out(model, left) for model, left in self.unseen.items()]
        powers = self.powers
        for a, b in combinations(powers, 2):
            notes.append(f"{self.response.label}: {_difference(a, powers[a], b, powers[b])}")
        if predict is not None:
            notes += [self._prediction(model, power, predict) for model, power in powers.items()]
        return notes

    def _held_out(self, model: str, left: Sequence[tuple[float, float, float]]) -> str:
        shown = self.response.shown
        predictions = ", ".join(
            f"{dof:,.0f}: {shown(predicted)} for {shown(observed)}"
            for dof, predicted, observed in left
        )
        error = mean(abs(predicted - observed) for _, predicted, observed in left)
        measure = self.response.measure
        off = f"{abs(measure(error) - measure(0)):.{self.response.digits}f}"
        rule = f"{self.response.label} at each DoF predicted by the power law fitted without it"
        return f"{model}, {rule}: {predictions}; off by {off} on average."

    def _prediction(self, model: str, fitted: Fit, dof: float) -> str:
        value, *ends = map(self.response.shown, fitted.predict(dof))
        low, high = sorted(ends, key=float)
        what = f"{self.response.label} by its power law"
        return f"{model} at {dof:,.0f} DoF, {what}: {value} [{low}, {high}]."


def study(points: Points, response: Response) -> Study:
    """Fit every law to the runs of each model, and predict each DoF from the others."""
    fits: dict[str, dict[str, Fit]] = {}
    unseen: dict[str, list[tuple[float, float, float]]] = {}
    for model, (dof, values) in points.items():
        fits[model] = {law: fit(law, dof, values, response.images) for law in LAWS}
        unseen[model] = held_out("power", dof, values, response.images)
    return Study(response, points, fits, unseen)


def by_model(runs: Sequence[Run], response: Callable[[Run], float]) -> Points:
    """The (dof, response) of all runs of each model."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.model, []).append(run)
    return {
        model: (
            np.array([run.dof for run in group], float),
            np.array([response(run) for run in group]),
        )
        for model, group in groups.items()
    }


def _laws(what: str, laws: Mapping[str, Fit]) -> str:
    descriptions = []
    for name, fitted in laws.items():
        values = []
        for parameter, value in fitted.parameters.items():
            low, high = fitted.intervals[parameter]
            values.append(f"{parameter} {value:.3g} [{low:.3g}, {high:.3g}]")
        descriptions.append(
            f"{name}: {', '.join(values)}, rms {fitted.residual:.2g}, AIC {fitted.aic:.1f}"
        )
    return (
        f"{what}, fitted (95 % bootstrap intervals): {'; '.join(descriptions)}. "
        f"Lowest AIC: {best(laws.values()).law}."
    )


def _difference(a: str, first: Fit, b: str, second: Fit) -> str:
    difference = compare_exponents(first, second)
    verdict = "not told apart" if difference.equal else "different"
    interval = f"{difference.difference:.3f} [{difference.low:.3f}, {difference.high:.3f}]"
    return f"Exponents of {a} and {b}: differ by {interval}, {verdict} at 95 %."
