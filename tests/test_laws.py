"""Every law over every registered generator."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lincon.generators import available, get
from lincon.generators.one_nonzero import OneNonzero
from lincon.maps.scaled import Scaled
from lincon.testing import check_generator
from tests.cases import OPTIONS, examples, generators, make, tables_of

pytestmark = pytest.mark.usefixtures("by_kernels")


def test_every_registered_generator_has_examples():
    assert set(OPTIONS) == set(available())


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_laws(name):
    @given(generators(name))
    def laws(generator):
        check_generator(generator)

    laws()


@pytest.mark.parametrize("generator", examples(), ids=repr)
@pytest.mark.parametrize("isometric", [False, True])
def test_laws_hold_for_scaled_generators(generator, isometric):
    third = generator.rows // 3
    check_generator(
        Scaled(generator, [third, third, generator.rows - 2 * third], [1.0, 2.5, 0.5], isometric)
    )


@pytest.mark.parametrize("generator", examples(), ids=repr)
def test_isometric_columns_have_unit_norm(generator):
    dense = Scaled(generator, [generator.rows], [3.0], True).dense()
    norms = dense.norm(dim=0)
    torch.testing.assert_close(norms[norms > 0], torch.ones_like(norms[norms > 0]))


@pytest.mark.parametrize("name", ["dense", "sparse"])
@given(rows=st.integers(1, 300), dof=st.integers(1, 20), seed=st.integers(0, 9))
def test_projections_have_unit_norm_columns(name, rows, dof, seed):
    for options in OPTIONS[name]:
        dense = make(name, rows, dof, seed, options).dense()
        torch.testing.assert_close(
            dense.norm(dim=0), torch.ones(dense.shape[1], dtype=torch.float64)
        )


def test_sparse_density_is_one_over_root_rows():
    generator = get("sparse")(10_000, 50, 3)
    assert generator.sparse().nnz == 50 * 100  # every column has √rows nonzeros


def test_dense_larger_than_its_cache_is_the_same_map(monkeypatch):
    import lincon.generators.dense as module

    free, grad = torch.randn(23, dtype=torch.float64), torch.randn(4001, dtype=torch.float64)
    for options in OPTIONS["dense"]:
        kept = get("dense")(4001, 23, 5, **options)
        expected = kept.unpack(free), kept.adjoint(grad)
        with monkeypatch.context() as patch:
            patch.setattr(module, "CACHE_BYTES", 0)
            patch.setattr(module, "BLOCK", 1000)
            streamed = get("dense")(4001, 23, 5, **options)
            torch.testing.assert_close(streamed.unpack(free), expected[0], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(streamed.adjoint(grad), expected[1], rtol=1e-12, atol=1e-12)
            assert not tables_of(streamed)


def test_sparse_larger_than_its_cache_is_the_same_map(monkeypatch):
    import lincon.generators.sparse as module

    free = torch.randn(23, dtype=torch.float64)
    expected = get("sparse")(4001, 23, 5).unpack(free)
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    streamed = get("sparse")(4001, 23, 5)
    assert torch.equal(streamed.unpack(free), expected) and not tables_of(streamed)


@pytest.mark.parametrize("generator", examples(), ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gradients_are_accumulated_in_float32(generator, dtype):
    grad = torch.full(
        (generator.rows,), 1.0009765625 if dtype == torch.float16 else 1.0078125, dtype=dtype
    )
    expected = generator.adjoint(grad.double())
    got = generator.adjoint(grad).double()
    torch.testing.assert_close(
        got, expected.to(dtype).double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-2
    )


@pytest.mark.parametrize("generator", examples(), ids=repr)
def test_a_batch_of_free_vectors_by_vmap(generator):
    batch = torch.randn(3, generator.dof, dtype=torch.float64)
    expected = torch.stack([generator.unpack(free) for free in batch])
    assert torch.equal(torch.func.vmap(generator.unpack)(batch), expected)
    torch.testing.assert_close(torch.func.jacrev(generator.unpack)(batch[0]), generator.dense())


@pytest.mark.parametrize("generator", examples(), ids=repr)
def test_forward_mode_and_second_derivatives(generator):
    free, tangent = torch.randn(2, generator.dof, dtype=torch.float64)
    _, moved = torch.func.jvp(generator.unpack, (free,), (tangent,))
    torch.testing.assert_close(moved, generator.unpack(tangent))
    hessian = torch.func.hessian(lambda w: generator.unpack(w).square().sum() / 2)(free)
    dense = generator.dense()
    torch.testing.assert_close(hessian, dense.T @ dense)


def test_an_accumulate_that_overwrites_is_found_out():
    class Forgetful(OneNonzero):
        name = "forgetful"

        def entries(self, rows):
            return rows % self.dof, None

        def _accumulate(self, out, grad, start):
            out.zero_()
            super()._accumulate(out, grad, start)

    with pytest.raises(AssertionError, match="_accumulate does not add to what is there"):
        check_generator(Forgetful(40, 5))
