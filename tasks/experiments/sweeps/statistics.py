"""Differences between schemes over trainings that are paired by seed, and how sure they are.

Runs of one seed share the initialisation, the order of the images and the augmentation. What these
do to a score they do to both schemes of a pair, so that a difference has less noise than the scores.
The seed draws G too, so the noise of G's draw is in the interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import mean, stdev

LEVEL = 0.95
"""The share of intervals that hold the true difference."""

LOOKS = 4, 6, 9, 14, 21, 32, 48
"""The numbers of seeds after which an experiment that chooses its own number looks at its results.

Each look is another chance to be wrong, so a claim is corrected for all of them.
"""


@dataclass(frozen=True)
class Difference:
    """The mean difference of a scheme to the reference, over seeds.

    Args:
        mean: in the unit of the scores; positive if the scheme's score is higher.
        low: end of the interval at `LEVEL`.
        high: the other end.
        pairs: how many seeds both have.
        margin: half the width of the interval that is corrected for all comparisons of a table.
            Only a difference that is larger is claimed.
    """

    mean: float
    low: float
    high: float
    pairs: int
    margin: float

    @property
    def is_claimed(self) -> bool:
        """Whether the corrected interval excludes zero."""
        return abs(self.mean) > self.margin

    def is_small(self, matters: float) -> bool:
        """Whether the corrected interval excludes a difference of ``matters`` either way."""
        return abs(self.mean) + self.margin < matters

    def shown(self, digits: int = 2) -> str:
        """Mean and interval; a star marks a claim."""
        mean, low, high = (f"{value:+.{digits}f}" for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]{' *' if self.is_claimed else ''}"


def difference(
    scores: Sequence[float],
    reference: Sequence[float],
    *,
    comparisons: int = 1,
    grain: float = 0.0,
) -> Difference | None:
    """The mean difference of paired scores with its interval, by Student's t.

    Args:
        scores: of a scheme, one a seed.
        reference: of the reference scheme, for the same seeds.
        comparisons: how many differences the table has, all looks at it counted. The corrected
            interval is Bonferroni's: the chance that any of them is claimed wrongly stays below
            1 - `LEVEL`, however they depend on each other.
        grain: the smallest step of a score, such as 100 / 10,000 for a percentage of that many
            items. A few differences may be equal by chance; their deviation counts as this at
            least.

    Returns:
        None for fewer than two pairs, which say nothing of the noise.

    >>> difference([85.0, 84.6, 85.2], [84.0, 83.5, 84.3]).shown()
    '+1.00 [+0.75, +1.25] *'
    >>> difference([85.0, 84.6, 83.2], [84.0, 83.5, 84.3]).shown()
    '+0.33 [-2.75, +3.42]'
    """
    from scipy.stats import t

    if len(scores) != len(reference):
        raise ValueError(f"{len(scores)} scores are paired with {len(reference)}.")
    of_pairs = [score - other for score, other in zip(scores, reference, strict=True)]
    if len(of_pairs) < 2:
        return None
    centre, error = mean(of_pairs), max(stdev(of_pairs), grain) / sqrt(len(of_pairs))
    width, corrected = (
        error * float(t.isf((1 - LEVEL) / 2 / number, len(of_pairs) - 1))
        for number in (1, comparisons)
    )
    return Difference(centre, centre - width, centre + width, len(of_pairs), corrected)


def differences(
    scores: Mapping[str, Mapping[int, float]],
    reference: str,
    *,
    looks: int = 1,
    grain: float = 0.0,
) -> dict[str, Difference | None]:
    """The difference of every other scheme to the reference, over the seeds that both have.

    Args:
        scores: scheme -> seed -> score.
        reference: one of the schemes.
        looks: how often results like these are looked at before it is said that they suffice.
        grain: see `difference`.

    >>> scores = {"rpg": {0: 85.0, 1: 84.6, 2: 85.2}, "random": {1: 83.5, 2: 84.3, 3: 84.0}}
    >>> differences(scores, "rpg")["random"].shown()
    '-1.00 [-2.27, +0.27]'
    """
    others = [name for name in scores if name != reference]
    found = {}
    for name in others:
        seeds = sorted(scores[name].keys() & scores[reference].keys())
        found[name] = difference(
            [scores[name][seed] for seed in seeds],
            [scores[reference][seed] for seed in seeds],
            comparisons=len(others) * looks,
            grain=grain,
        )
    return found


def next_look(seeds: int) -> int | None:
    """How many seeds there are at the look after that at ``seeds``; None after the last.

    >>> next_look(0), next_look(6), next_look(48)
    (4, 9, None)
    """
    return dict(pairwise((0, *LOOKS))).get(seeds)
