"""Rows beyond 2³¹, 2³² and 2³³, as models of billions of weights have them."""

import pytest
import torch
from torch import nn

import lincon
from lincon.generators import Dense, Fold, Hash, Random, Ring, Sparse, one_nonzero

ROWS = (1 << 33) + 5_000
BORDERS = (1 << 31, 1 << 32, 1 << 33)
WIDTH = 1_200
"""Rows that are made on each side of a border."""

MAPS = {
    "ring": lambda: Ring(ROWS, 999, 5),
    "ring of a million": lambda: Ring(ROWS, 1_000_003, 5),
    "ring, tile 1": lambda: Ring(ROWS, 999, 5, tile=1),
    "deck": lambda: Ring(ROWS, 999, 5, order="deck"),
    "hash": lambda: Hash(ROWS, 999, 5),
    "random": lambda: Random(ROWS, 999, 5),
    "fold": lambda: Fold(ROWS, 999, 5),
    "fold, chunk": lambda: Fold(ROWS, 999, 5, chunk=33),
}


def near(border):
    return border - WIDTH, border + WIDTH


def definition(generator, start, stop, free):
    index, sign = generator.entries(torch.arange(start, stop))
    return free[index] if sign is None else free[index] * sign


@pytest.fixture(params=["compiled", "torch", "triton"])
def path(request, monkeypatch):
    """What makes the rows: numba's loops, torch's operations, or Triton's loops by its interpreter."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    elif request.param == "torch":
        monkeypatch.setattr(one_nonzero, "kernel_for", lambda device: None)
    else:
        pytest.importorskip("triton")
        request.getfixturevalue("wide_numbers")
        from lincon.kernels import gpu

        monkeypatch.setattr(one_nonzero, "kernel_for", lambda device: gpu)
        monkeypatch.setattr(one_nonzero, "SMALLEST_RUN", 1)
        request.addfinalizer(gpu.release)
    return request.param


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", MAPS)
def test_rows_and_their_adjoint_are_those_of_the_entries(name, border, path):
    generator, (start, stop) = MAPS[name](), near(border)
    free = torch.randn(generator.dof)
    expected = definition(generator, start, stop, free)
    assert torch.equal(generator.unpack(free, start, stop), expected)
    grad = torch.randn(stop - start, dtype=torch.float64)
    index, sign = generator.entries(torch.arange(start, stop))
    values = grad if sign is None else grad * sign
    total = torch.zeros(generator.dof, dtype=torch.float64).index_add_(0, index, values)
    torch.testing.assert_close(generator.adjoint(grad, start, stop), total)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("name", ["ring", "ring, tile 1"])
def test_every_lap_of_a_ring_uses_each_number_once(name, border):
    generator = MAPS[name]()
    lap = border // generator.dof * generator.dof
    for start in (lap - generator.dof, lap, lap + generator.dof):
        index, _ = generator.entries(torch.arange(start, start + generator.dof))
        assert index.sort().values.equal(torch.arange(generator.dof))


def test_rows_of_far_laps_are_others():
    """Counters of 32 bits would repeat: rows n and n + 2³² would be alike."""
    for make in MAPS.values():
        generator = make()
        index, sign = generator.entries(torch.arange(1_000))
        far, far_sign = generator.entries(torch.arange(1_000) + (1 << 32) // 999 * 999)
        wrapped, _ = generator.entries(torch.arange(1_000) + (1 << 32))
        assert not index.equal(far) and not index.equal(wrapped)
        assert sign is None or not sign.equal(far_sign)


@pytest.mark.parametrize("make", [Dense, Sparse])
def test_projections_make_the_same_rows_in_any_chunks(make):
    generator, start = make(ROWS, 101, 5), (1 << 32) - 50
    free = torch.randn(101, dtype=torch.float64)
    whole = generator.unpack(free, start, start + 100)
    parts = [generator.unpack(free, start + at, start + at + 10) for at in range(0, 100, 10)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=0)


def test_one_layer_of_seven_billion_weights_is_its_rows_of_the_ledger():
    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(4096, 4096, bias=False) for _ in range(420)])
    constraint = lincon.constrain(model, "ring", dof=1_000_000, scale=None)
    assert constraint.rows > 7_000_000_000
    (group,) = constraint.groups
    entry = next(each for each in group.ledger if each.start > 1 << 32)
    free, start = torch.randn(1_000_000), entry.start
    made = group.scaled().unpack(free, start, start + 5_000)
    assert torch.equal(made, definition(group.generator, start, start + 5_000, free))
