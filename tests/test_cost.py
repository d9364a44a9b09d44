"""What making the weights costs is said when a model is constrained, and never measured in vain."""

import warnings

import pytest
import torch
from torch import nn

import lincon
from lincon.attaching import cost
from lincon.errors import LinconWarning
from lincon.generators import Dense, Hash, Kronecker, Matrix, Part, Ring, Sparse


def layers(count=4, width=64):
    return nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(count)])


class Slow(lincon.Generator):
    """One of somebody else, which does not count its work: a row at a time."""

    name = "slow"

    def _write(self, out, prepared, start):
        for row in range(len(out)):
            out[row] = prepared[(start + row) % self.dof]

    def _accumulate(self, out, grad, start):
        for row in range(len(grad)):
            out[(start + row) % self.dof] += grad[row]

    def energy(self, start, stop):
        return 1.0


@pytest.mark.parametrize(
    "generator",
    [Ring(900, 40), Hash(900, 40), Dense(900, 40), Sparse(900, 40)],
    ids=lambda generator: generator.name,
)
def test_the_work_of_all_rows_is_the_number_of_nonzeros(generator):
    assert generator.work(900) == generator.dense().count_nonzero()


def test_a_matrix_counts_its_nonzeros_and_a_part_the_rows_between_its_own():
    dense = torch.eye(6).repeat(2, 1)
    assert Matrix(12, 6, matrix=dense).work(12) == 72
    assert Matrix(12, 6, matrix=dense.to_sparse()).work(12) == 12
    rows = torch.arange(12) % 2 == 0
    assert Part.of(Matrix(12, 6, matrix=dense), rows=rows).work(6) == 72


def test_a_generator_far_dearer_than_the_model_is_named_with_those_that_fit(monkeypatch):
    monkeypatch.setattr(cost, "UNNOTICED", 0)
    model = layers()
    with pytest.warns(LinconWarning, match="dense: .* 12 times .* a batch of 64") as warned:
        lincon.constrain(model, "dense", dof=768)
    fitting = str(warned[0].message).rpartition("fits: ")[2]
    assert fitting == "ring, hash, fold, fastfood, kronecker, sparse."
    assert warned[0].filename == __file__
    assert lincon.summary(model).cost == cost.Cost(16_384 * 768, 16_384)
    assert "768 multiplications a weight, 12.00 x the model" in str(lincon.summary(model))


def test_the_groups_of_a_scope_are_warned_of_once_and_by_their_sum(monkeypatch):
    monkeypatch.setattr(cost, "UNNOTICED", 0)
    with pytest.warns(LinconWarning, match="12 times") as warned:
        lincon.constrain(layers(), "dense", dof=4 * 768, scope="tensor")
    assert len([each for each in warned if "multiplications" in str(each.message)]) == 1


def test_what_nobody_would_notice_is_attached_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error", LinconWarning)
        lincon.constrain(layers(), "dense", dof=768)


@pytest.mark.parametrize("name", ["ring", "hash", "random", "fold", "sparse", "fastfood", "dense"])
def test_what_fits_is_attached_without_a_word_and_never_timed(name, monkeypatch):
    monkeypatch.setattr(cost, "perf_counter", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LinconWarning)
        lincon.constrain(layers(), name, dof=0.01)


def test_layer_mode_counts_a_whole_kronecker_for_every_tensor():
    model = layers(9)
    lincon.constrain(model, "kronecker", dof=200, materialize="layer", scale=None)
    whole = Kronecker(9 * 64 * 64, 200).work(1)
    assert lincon.summary(model).cost.work == 9 * whole


def test_a_generator_that_does_not_count_is_timed(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(cost, "perf_counter", lambda: next(clock))  # a block takes a second
    with pytest.warns(LinconWarning, match="slow: a forward"):
        lincon.constrain(layers(1), Slow, dof=50)


def test_what_is_too_large_to_be_timed_is_not_judged():
    huge = Slow(1 << 21, 10)
    huge.grain = huge.rows
    assert cost.cost_of([(huge, [huge.rows])]) is None
