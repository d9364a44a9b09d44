"""The statistics of tables, on scores whose differences are known."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from lincon.tasks.experiments.sweeps.paired import pairs
from lincon.tasks.experiments.sweeps.statistics import LOOKS, difference, differences, next_look

TABLES = 1000
"""Synthetic tables of a test."""

NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda random, size: random.normal(0, 1, size),
    "uniform": lambda random, size: random.uniform(-1, 1, size),
    "heavy tails": lambda random, size: random.standard_t(5, size),
}


def scores(random, schemes, seeds, noise="normal", effect=0.0):
    """Scores of schemes that share the noise of a seed; the last is better by ``effect``."""
    shared = 3 * random.normal(0, 1, seeds)
    values = 85 + shared + NOISES[noise](random, (schemes, seeds))
    values[-1] += effect
    return {str(number): dict(enumerate(row)) for number, row in enumerate(values)}


def at_most(wrong: int, tables: int, rate: float) -> bool:
    """Whether a count of errors agrees with a rate, up to four standard deviations of the count."""
    return bool(wrong <= tables * rate + 4 * np.sqrt(tables * rate * (1 - rate)))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 30])
def test_intervals_hold_the_true_difference_as_often_as_they_say(seeds, noise):
    random = np.random.default_rng(seeds)
    missed = 0
    for _ in range(TABLES):
        found = differences(scores(random, 2, seeds, noise, effect=0.7), "0")["1"]
        missed += not found.low <= 0.7 <= found.high
    assert at_most(missed, TABLES, 0.05)
    if noise == "normal":  # and are not wider than they need to be
        assert at_most(TABLES - missed, TABLES, 0.95)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_many_schemes_that_are_equal_none_is_claimed_to_differ(seeds):
    random = np.random.default_rng(seeds)
    wrong = 0
    for _ in range(TABLES):
        found = differences(scores(random, 9, seeds), "0")
        wrong += any(each.is_claimed for each in found.values())
    assert at_most(wrong, TABLES, 0.05)


def test_a_difference_that_is_there_is_found():
    random = np.random.default_rng(0)
    found = sum(
        differences(scores(random, 9, 10, effect=3.0), "0")["8"].is_claimed for _ in range(200)
    )
    assert found > 190


def test_looking_again_and_again_until_something_differs_claims_no_more():
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(TABLES):
        everything = scores(random, 4, LOOKS[-1])
        for seeds in LOOKS:
            part = {name: dict(list(row.items())[:seeds]) for name, row in everything.items()}
            found = differences(part, "0", looks=len(LOOKS))
            if any(each.is_claimed for each in found.values()):
                wrong += 1
                break
    assert at_most(wrong, TABLES, 0.05)


def test_a_difference_too_small_to_matter_is_not_called_small_while_it_may_be_large():
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(TABLES):
        found = differences(scores(random, 2, 10, effect=1.0), "0")["1"]
        wrong += found.is_small(1.0)
    assert at_most(wrong, TABLES, 0.05)
    alike = difference([1.0, 1.01, 0.99, 1.0], [1.0, 1.0, 1.0, 1.0])
    assert alike.is_small(0.2) and not alike.is_claimed


def test_pairing_takes_out_what_the_seed_does_to_all():
    random = np.random.default_rng(0)
    rows = scores(random, 2, 20, effect=1.0)
    paired = differences(rows, "0")["1"]
    shuffled = {"0": rows["0"], "1": {(seed + 7) % 20: score for seed, score in rows["1"].items()}}
    unpaired = differences(shuffled, "0")["1"]
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2


def test_equal_differences_by_chance_are_no_certainty():
    sure = difference([85.01, 86.01, 87.01], [85.0, 86.0, 87.0])
    assert sure.is_claimed
    careful = difference([85.01, 86.01, 87.01], [85.0, 86.0, 87.0], grain=0.01)
    assert not careful.is_claimed


def test_one_seed_says_nothing_of_the_noise_and_lengths_must_agree():
    assert difference([85.0], [84.0]) is None
    with pytest.raises(ValueError, match="paired"):
        difference([85.0, 86.0], [84.0])


def test_a_reference_that_takes_no_dof_is_compared_with_all():
    def group(scheme, asked):
        return [SimpleNamespace(scheme=scheme, asked=asked, model="net")]

    vanilla, few, many = group("vanilla", None), group("mine", 0.1), group("mine", 0.5)
    assert pairs([vanilla, few, many]) == [(few, vanilla), (many, vanilla)]
    rpg, more = group("rpg", 0.1), group("rpg", 0.5)
    assert pairs([rpg, more, few, vanilla]) == [(few, rpg)]


def test_scores_are_paired_by_seed_not_by_place():
    found = differences({"a": {0: 1.0, 1: 2.0, 5: 9.0}, "b": {1: 2.5, 0: 1.5, 7: 0.0}}, "a")["b"]
    assert (found.mean, found.pairs) == (0.5, 2)


def test_the_looks_follow_each_other():
    seeds, taken = 0, []
    while (seeds := next_look(seeds)) is not None:
        taken.append(seeds)
    assert tuple(taken) == LOOKS
