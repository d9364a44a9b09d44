"""What stays in memory to be fast is counted, let go of by one call, and made again."""

import pytest
import torch
from torch import nn

import lincon
from lincon import recycling
from lincon.generators import Ring
from lincon.maps.kept import kept_bytes
from tests.cases import examples, integers, tables_of
from tests.test_situations import GENERATORS, MODES, constrained

EXAMPLES = pytest.mark.parametrize("generator", examples(), ids=repr)


def used(generator):
    free = integers(generator.dof, 1)
    return generator.unpack(free), generator.adjoint(integers(generator.rows, 2))


@EXAMPLES
def test_a_map_lets_go_of_all_that_it_keeps_and_makes_it_again(generator):
    state = generator.tables()
    generator.release()
    assert kept_bytes(generator, but=state) == 0
    first = used(generator)
    kept = kept_bytes(generator, but=state)
    assert kept >= kept_bytes(tables_of(generator), but=state)
    generator.release()
    assert kept_bytes(generator, but=state) == 0
    for before, after in zip(first, used(generator), strict=True):
        assert torch.equal(before, after)


@MODES
@GENERATORS
@pytest.mark.parametrize("options", [{}, {"scale": "isometric"}, {"gradient": "gram"}], ids=str)
def test_a_summary_counts_what_is_kept_until_it_is_released(generator, materialize, options):
    model, x = constrained(generator, materialize=materialize, **options), torch.ones(2, 6)
    (constraint,) = lincon.constraints(model)

    def step():
        model.zero_grad()
        model(x).sum().backward()
        with torch.no_grad():
            return [model(x), *(p.grad.clone() for p in model.parameters())]

    constraint.release()
    summary = lincon.summary(model)
    assert summary.kept == 0 and "kept" not in str(summary)
    constraint.release()  # for a summary has made fingerprints
    first = step()
    summary = lincon.summary(model)
    kept = summary.kept
    held = materialize == "model"  # Ŵ, and a copy of the free vector
    assert kept >= 4 * held * (constraint.rows + constraint.dof)
    assert f"{kept:,}  (to be fast" in str(summary) or not kept
    constraint.release()
    assert lincon.summary(model).kept == 0
    assert all(map(torch.equal, first, step()))


def test_the_places_of_a_rings_tiles_are_counted(by_kernels):
    ring = Ring(200_000, 6_400)
    used(ring)
    assert kept_bytes(ring) >= 4 * ring.rows // ring.tile


def test_buffers_of_a_step_are_counted(monkeypatch):
    monkeypatch.setattr(recycling, "LARGE", 1)
    model = nn.Sequential(nn.Linear(200, 200))
    constraint = lincon.constrain(model, "ring", dof=0.1)
    model(torch.ones(1, 200)).sum().backward()
    step = constraint.kept_bytes
    assert step >= 4 * constraint.rows
    model.train()
    assert constraint.kept_bytes == step
    assert model.eval() is model and not model[0].training
    assert constraint.kept_bytes <= step - 4 * constraint.rows
    constraint.release()
    assert constraint.kept_bytes == 0


def test_w0_from_a_seed_is_resident_and_not_kept():
    model = nn.Sequential(nn.Linear(6, 3))
    lincon.constrain(model, "ring", dof=0.5, offset="seed", materialize="layer")
    with torch.no_grad():
        model(torch.ones(1, 6))
    lincon.constraints(model)[0].release()
    summary = lincon.summary(model)
    assert summary.kept == 0 and summary.resident >= 4 * summary.rows
