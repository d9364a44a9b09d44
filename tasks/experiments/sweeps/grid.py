"""The same small grid of settings for every scheme, and the trials of it.

The test set is not looked at: a trial trains on the other training items, with seeds of its own, and
is measured on those that are held out. What scores best is what the comparison trains with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, isfinite
from statistics import mean
from typing import Any

from lincon import LinconError
from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.task import Measure

Settings = Mapping[str, Any]
"""Fields of a recipe, and their values."""

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


def lead(trials: Sequence[Trial], measure: Measure) -> float:
    """By how much the best of a line's trials was ahead of the next; inf where there is none.

    >>> accuracy = Measure("accuracy", "accuracy %")
    >>> lead([Trial("net", "rpg", 0.1, {}, {0: score}) for score in (70.0, 72.5, 71.0)], accuracy)
    1.5
    """
    *_, second, best = sorted([-inf, *(trial.rank(measure) for trial in trials)])
    return best - second if isfinite(best) else inf


def said(settings: Settings) -> str:
    """Settings as a table shows them.

    >>> said({"learning_rate": 0.1})
    'learning rate 0.1'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())


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
