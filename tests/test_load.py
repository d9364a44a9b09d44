"""Memory stays as it is, threads do not meet, and their number changes no bit; `make soak` takes longer."""

import pytest
import torch

from lincon.generators import available

from . import load
from .cases import GIVEN, OPTIONS, make


@pytest.mark.parametrize("materialize", ["model", "layer"])
@pytest.mark.parametrize("kind", ["training", "inference"])
def test_memory_does_not_grow_with_errors_copies_and_loads_in_between(kind, materialize):
    found = load.growth(kind, materialize, rounds=60)
    assert not load.grew(found), found


@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_eight_threads_infer_one_model(materialize):
    model = load.constrained(materialize)
    inputs = [torch.full((2, 64), number / 8) for number in range(8)]
    with torch.no_grad():
        expected = [model(each) for each in inputs]
    for outputs, one in zip(load.outputs_of_threads(model, inputs, 10), expected, strict=True):
        assert len(outputs) == 10 and all(torch.equal(each, one) for each in outputs)


BY_MATRIX_PRODUCTS = "dense", "kronecker"
"""Generators whose sums the linear algebra library orders, as it does those of a layer."""

SEEDED = [(name, options) for name in available() if name not in GIVEN for options in OPTIONS[name]]


@pytest.mark.parametrize(("name", "options"), SEEDED, ids=str)
def test_one_thread_and_two_make_the_same_bits(name, options):
    generator = make(name, 70_001, 64 if name in ("codebook", "dense") else 3001, 7, options)
    free, rows = torch.randn(generator.dof), torch.randn(generator.rows)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(torch.cat([generator.unpack(free), generator.adjoint(rows)]))
    torch.set_num_threads(1)
    exact = name not in BY_MATRIX_PRODUCTS
    torch.testing.assert_close(*results, **({"rtol": 0, "atol": 0} if exact else {}))
