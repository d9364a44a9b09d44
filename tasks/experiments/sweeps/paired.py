"""How each line of a comparison differs from the reference scheme, over trainings paired by seed."""

from collections.abc import Mapping, Sequence
from typing import Any

from lincon.tasks.experiments.sweeps.statistics import Difference, difference
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

REFERENCE = "rpg"
"""The scheme that others are compared with, where it is among them."""

Group = Sequence[Run]
"""Runs that differ in their seeds only."""


def reference_of(groups: Sequence[Group]) -> str:
    """`REFERENCE` if it is among the schemes, else the first."""
    schemes = [group[0].scheme for group in groups]
    return REFERENCE if REFERENCE in schemes else schemes[0]


def pairs(groups: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Each group with the reference's of the same model and DoF.

    What takes no DoF is compared with the reference if that has a single DoF, and a reference that
    takes none with all others.
    """
    reference = reference_of(groups)
    found = []
    for group in groups:
        others = [
            other
            for other in groups
            if other[0].scheme == reference
            and other[0].model == group[0].model
            and (None in (group[0].asked, other[0].asked) or _asked(other) == _asked(group))
        ]
        if group[0].scheme != reference and len(others) == 1:
            found.append((group, others[0]))
    return found


def _asked(group: Group) -> str:
    """The DoF asked for, in words that tell 1 from 1.0."""
    return str(group[0].asked)


def paired(
    groups: Sequence[Group],
    measures: Sequence[Measure],
    grains: Mapping[str, float] | None = None,
    looks: int = 1,
) -> dict[int, dict[str, Difference | None]]:
    """The difference of each group to the reference's, by measure, in the units of their labels.

    Claims are corrected for every difference of the table, and for all ``looks`` at it.

    Args:
        groups: of runs that differ in their seeds only.
        measures: each is compared.
        grains: the smallest steps of measures, by name.
        looks: how often results are looked at before it is said that they suffice.

    Returns:
        By the group's place among ``groups``; without those that have no reference.
    """
    compared = pairs(groups)
    number = max(1, len(compared) * len(measures) * looks)
    found: dict[int, dict[str, Difference | None]] = {}
    for group, other in compared:
        place = next(n for n, each in enumerate(groups) if each is group)
        found[place] = {
            measure.name: difference(
                *_of_common_seeds(group, other, measure),
                comparisons=number,
                grain=(grains or {}).get(measure.name, 0.0),
            )
            for measure in measures
        }
    return found


def _of_common_seeds(
    group: Group, other: Group, measure: Measure
) -> tuple[list[float], list[float]]:
    """Last values of a measure for the seeds that both have, in the order of the seeds."""
    here, there = ({run.seed: measure.last(run.test) for run in each} for each in (group, other))
    seeds = sorted(here.keys() & there.keys())
    return [here[seed] for seed in seeds], [there[seed] for seed in seeds]


def note(
    groups: Sequence[Group], found: Mapping[int, Mapping[str, Any]], looks: int = 1
) -> list[str]:
    """What a reader must know of the columns of differences, if there are any."""
    if not any(each for row in found.values() for each in row.values()):
        return []
    number = sum(len(row) for row in found.values())
    several = f", corrected for the {number} comparisons of this table" if number > 1 else ""
    if looks > 1:
        several += f", each looked at up to {looks} times"
    return [
        f"Differences to {reference_of(groups)} are over pairs of one seed, with the 95 % interval "
        f"of their mean. A star: the interval{several}, excludes zero. Where there is none, the "
        "table does not tell which is better."
    ]
