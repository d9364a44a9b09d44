"""The same small grid of settings for every scheme, tried on training items that are held out.

The test set is not looked at: a trial trains on the other training items, with seeds of its own, and
is measured on those that are held out. What scores best is what the comparison trains with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, isfinite
from statistics import mean
from typing import Any

from lincon import LinconError
from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.sweeps.report import group_seeds
from lincon.tasks.experiments.sweeps.sweep import Settings, Sweep, group_name
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run

TUNABLE = "learning_rate", "weight_decay"
"""Fields of a recipe that may be tuned."""

FIRST_SEED = 1 << 31
"""The trials have seeds from here on, which no comparison has."""


@dataclass(frozen=True)
class Grid:
    """What is tried for each scheme.

    Args:
        values: of fields of the recipe, each of `TUNABLE`; every combination is tried.
        held_out: training items on which trials are measured.
        seeds: trials of a combination. What one alone picks is partly chance, which no interval
            over the seeds of a comparison has in it.

    Raises:
        LinconError: another field, no value, or nothing held out.
    """

    values: Mapping[str, Sequence[float]]
    held_out: int
    seeds: int = 3

    def __post_init__(self) -> None:
        for name, values in self.values.items():
            choose("setting to be tuned", name, dict.fromkeys(TUNABLE))
            if not values:
                raise LinconError(f"{name} is to be tuned, but has no values.")
        if self.held_out < 1:
            raise LinconError(
                "What is tuned is measured on training items that are held out, never on the test "
                "set: give --held-out."
            )

    @property
    def combinations(self) -> list[Settings]:
        """Every combination of the values."""
        return [
            dict(zip(self.values, each, strict=True)) for each in product(*self.values.values())
        ]

    @property
    def described(self) -> dict[str, Any]:
        """As plain JSON."""
        values = {name: list(each) for name, each in self.values.items()}
        return {"tuned": {**values, "held_out": self.held_out, "seeds": self.seeds}}


@dataclass(frozen=True)
class Trial:
    """A combination of settings that was tried for a scheme.

    Args:
        model: name of the model.
        scheme: name of the scheme.
        asked: the DoF that were asked for.
        settings: what was tried.
        scores: on the held-out items, by seed, in the unit of the measure.
    """

    model: str
    scheme: str
    asked: int | float | None
    settings: Settings
    scores: dict[int, float]

    def rank(self, measure: Measure) -> float:
        """Higher is better; what diverged is the worst."""
        scores = list(self.scores.values())
        if not all(map(isfinite, scores)):
            return -inf
        return mean(scores) if measure.higher_is_better else -mean(scores)


def trials(sweep: Sweep, grid: Grid) -> list[tuple[Settings, Sweep]]:
    """The sweep of each combination of settings, in the folder ``tuning`` of the comparison."""
    groups = dict.fromkeys(replace(cell, seed=FIRST_SEED) for cell in sweep.cells)
    seeds = range(FIRST_SEED, FIRST_SEED + grid.seeds)
    cells = [replace(cell, seed=seed) for seed in seeds for cell in groups]
    found = []
    for settings in grid.combinations:
        folder = "-".join(f"{name}-{value:g}" for name, value in settings.items())
        recipe = replace(sweep.recipe, held_out=grid.held_out, **settings)
        out = sweep.out / "tuning" / folder
        found.append((settings, replace(sweep, recipe=recipe, cells=cells, out=out)))
    return found


def tune(sweep: Sweep, grid: Grid) -> tuple[Sweep, list[Trial]]:
    """Train the trials that are missing; called again, it continues.

    Returns:
        The sweep with what scored best for each model, scheme and DoF, and all trials.

    Raises:
        LinconError: whatever `Sweep.check` refuses, of the comparison or of a trial.
    """
    sweep = replace(sweep, choices=grid.described)
    sweep.check()  # before hours of trials, not after
    measure = sweep.measures[0]
    tried = [
        _trial(group, settings, measure)
        for settings, trial in trials(sweep, grid)
        for group in group_seeds(trial.run())
    ]
    best: dict[str, Trial] = {}
    for each in tried:
        name = group_name(Cell(each.model, each.scheme, each.asked, 0, sweep.recipe.task))
        if name not in best or each.rank(measure) > best[name].rank(measure):
            best[name] = each
    return replace(sweep, settings={name: each.settings for name, each in best.items()}), tried


def lead(trials: Sequence[Trial], measure: Measure) -> float:
    """By how much the best of a line's trials was ahead of the next; inf where there is none.

    >>> accuracy = Measure("accuracy", "accuracy %")
    >>> lead([Trial("net", "rpg", 0.1, {}, {0: score}) for score in (70.0, 72.5, 71.0)], accuracy)
    1.5
    """
    *_, second, best = sorted([-inf, *(trial.rank(measure) for trial in trials)])
    return best - second if isfinite(best) else inf


def _trial(group: Sequence[Run], settings: Settings, measure: Measure) -> Trial:
    scores = {run.seed: measure.last(run.test) for run in group}
    return Trial(group[0].model, group[0].scheme, group[0].asked, settings, scores)


def parse(texts: Sequence[str]) -> dict[str, list[float]]:
    """The values of texts such as "learning-rate=0.1,0.2".

    Raises:
        LinconError: a text of another form.

    >>> parse(["learning-rate=0.1,0.2"])
    {'learning_rate': [0.1, 0.2]}
    """
    found = {}
    for text in texts:
        name, equals, values = text.partition("=")
        try:
            numbers = [float(each) for each in values.split(",")] if equals else []
        except ValueError:
            numbers = []
        if not numbers:
            raise LinconError(
                f"--tune is {text!r}; give a setting and its values, as in learning-rate=0.05,0.1."
            )
        found[name.strip().replace("-", "_")] = list(dict.fromkeys(numbers))
    return found


def said(settings: Settings) -> str:
    """Settings as a table shows them.

    >>> said({"learning_rate": 0.1})
    'learning rate 0.1'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())
