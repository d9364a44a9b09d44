"""Triton's loops: the bits of `entries`, and an adjoint without atomics.

Without a CUDA device they are run by Triton's interpreter, on tensors of the CPU.
"""

from itertools import pairwise

import pytest
import torch

import lincon
from lincon import kernels
from lincon.generators import Codebook, Fold, Hash, Random, Ring, one_nonzero
from lincon.generators.one_nonzero import OneNonzero
from lincon.maps.scaled import Scaled

pytest.importorskip("triton")
from lincon.kernels import gpu

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Weighted(OneNonzero):
    """Of signs that are no signs: 2, 1, 0, -1."""

    name = "weighted"

    def entries(self, rows):
        return rows * 5 % self.dof, (2 - rows % 4).to(torch.int8)


def codebook(rows, dof, values):
    return Codebook(rows, dof, index=torch.arange(rows) * 7919 % values)


MAPS = {
    "ring": (lambda: Ring(1_503, 402, 5, tile=64), "laps"),
    "ring, a lap and a bit": (lambda: Ring(901, 702, 5, tile=64), "laps"),
    "ring, many laps": (lambda: Ring(1_603, 90, 5, tile=32), "laps"),
    "ring, tile 1": (lambda: Ring(701, 201, 5, tile=1), "laps"),
    "ring, tile 5": (lambda: Ring(701, 201, 5, tile=5), "laps"),
    "ring, tile 200": (lambda: Ring(1_503, 402, 5, tile=200), "laps"),
    "ring, unpermuted": (lambda: Ring(1_501, 301, 5, permute=False), "laps"),
    "ring, unsigned": (lambda: Ring(1_501, 301, 5, sign=False), "laps"),
    "deck": (lambda: Ring(1_501, 301, 5, order="deck"), "decks"),
    "hash": (lambda: Hash(1_501, 301, 5), "buckets"),
    "random": (lambda: Random(1_501, 301, 5), "buckets"),
    "fold": (lambda: Fold(1_501, 301, 5), "folds"),
    "fold, chunk": (lambda: Fold(1_501, 301, 5, chunk=33), "folds"),
    "codebook": (lambda: codebook(1_501, 200, 201), "tabled"),
    "codebook of three": (lambda: codebook(1_501, 3, 3), "tabled"),
    "weighted": (lambda: Weighted(1_501, 301), "tabled"),
}


@pytest.fixture(autouse=True)
def by_triton(monkeypatch):
    """Tensors of the CPU go to Triton's loops, and so do rings of small tiles."""
    monkeypatch.setattr(one_nonzero, "kernel_for", lambda device: gpu)
    monkeypatch.setattr("lincon.generators.one_nonzero.SMALLEST_RUN", 1)
    monkeypatch.setattr(one_nonzero, "FEW", 0)
    yield
    gpu.release()


def made(name, dtype=torch.float32):
    """A map, what it is to make of a free vector, and G."""
    generator = MAPS[name][0]()
    free = torch.randn(generator.dof).to(dtype)
    rows = torch.arange(generator.rows)
    index, sign = generator.entries(rows)
    sign = torch.ones_like(rows) if sign is None else sign
    dense = torch.zeros(generator.rows, generator.dof, dtype=torch.float64)
    dense[rows, index] = sign.double()
    return generator, free, free[index] * sign.to(dtype), dense


def unpacked(generator, free, *rows):
    return generator.unpack(free.to(DEVICE), *rows).cpu()


def adjoint(generator, grad, *rows):
    return generator.adjoint(grad.to(DEVICE), *rows).cpu()


def ranges(generator):
    rows = generator.rows
    return [
        (0, rows),
        (rows // 7 + 3, rows - rows // 11),
        (rows - 65, rows),
        (rows // 2, rows // 2),
    ]


@pytest.mark.parametrize("name", MAPS)
def test_rows_have_the_bits_of_entries_and_the_adjoint_is_that_of_the_dense_matrix(name):
    generator, free, expected, dense = made(name)
    for start, stop in ranges(generator):
        assert torch.equal(unpacked(generator, free, start, stop), expected[start:stop])
        grad = torch.randint(-99, 99, (stop - start,)).double()  # whose sums are not rounded
        exact = (dense[start:stop].T @ grad).float()
        assert torch.equal(adjoint(generator, grad.float(), start, stop), exact)
    assert generator._loop_on(DEVICE).name == MAPS[name][1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["ring", "hash"])
def test_every_dtype_in_one_pass_with_sums_of_32_bits_or_more(name, dtype, monkeypatch):
    monkeypatch.setattr(one_nonzero, "chunks", None)  # torch's operations need it
    generator, free, expected, dense = made(name, dtype)
    sizes = [generator.rows // 3, generator.rows - generator.rows // 3]
    # Triton's interpreter cuts bfloat16 off, where a card rounds: there no product may be rounded.
    scales = [0.5, 4.0] if dtype == torch.bfloat16 else [0.3, 1.7]
    scaled = Scaled(generator, sizes, scales, False)
    multiplier = torch.repeat_interleave(torch.tensor(scales).double(), torch.tensor(sizes))
    expected[: sizes[0]].mul_(scales[0])
    expected[sizes[0] :].mul_(scales[1])
    assert torch.equal(unpacked(scaled, free), expected)
    grad = torch.randn(generator.rows).to(dtype)
    exact = dense.T @ (grad.double() * multiplier)
    torch.testing.assert_close(adjoint(scaled, grad), exact.to(dtype))


@pytest.mark.parametrize("name", ["ring", "fold"])
def test_laps_add_in_the_order_of_rows_as_on_a_cpu(name, monkeypatch):
    pytest.importorskip("numba")
    generator, *_ = made(name)
    grad = torch.randn(generator.rows)
    found = adjoint(generator, grad)
    monkeypatch.setattr(one_nonzero, "kernel_for", lambda device: kernels._cpu())
    assert torch.equal(found, generator.adjoint(grad))


@pytest.mark.parametrize("name", ["ring", "hash", "fold", "codebook"])
def test_tensors_of_any_sizes_with_their_multipliers_in_one_pass(name):
    generator, free, expected, dense = made(name)
    rows = generator.rows
    cuts = torch.randperm(rows - 1)[:40].add(1).sort().values.tolist()
    sizes = [high - low for low, high in pairwise([0, *cuts, rows])]
    scales = [1 + number / 8 for number in range(len(sizes))]
    scaled = Scaled(generator, sizes, scales, False)
    multiplier = torch.repeat_interleave(torch.tensor(scales), torch.tensor(sizes))
    expected *= multiplier
    for start, stop in [(cuts[3] + 5, cuts[-3] - 5)]:
        assert torch.equal(unpacked(scaled, free, start, stop), expected[start:stop])
        grad = torch.randint(-99, 99, (stop - start,)).double()
        exact = dense[start:stop].T @ (grad * multiplier[start:stop])
        assert torch.equal(adjoint(scaled, grad.float(), start, stop), exact.float())


@pytest.mark.parametrize("start", [(1 << 31) - 100, (1 << 32) - 100, (1 << 33) + 12_345])
def test_rows_beyond_32_bits(start, wide_numbers, monkeypatch):
    monkeypatch.setattr(gpu, "NARROW", 1 if start % 2 else 1 << 30)  # places of 64 bits or of 32
    rows, dof = start + 10_000, 100
    free, grad = torch.randn(dof), torch.randint(-99, 99, (300,)).float()
    for generator in (
        Ring(rows, dof, tile=64),
        Ring(rows, dof, order="deck"),
        Hash(rows, dof),
        Fold(rows, dof),
    ):
        index, sign = generator.entries(torch.arange(start, start + 300))
        assert torch.equal(unpacked(generator, free, start, start + 300), free[index] * sign)
        exact = torch.zeros(dof).index_add_(0, index, grad * sign)
        assert torch.equal(adjoint(generator, grad, start, start + 300), exact)


def test_few_entries_are_summed_in_shares_and_many_rows_in_parts(monkeypatch):
    monkeypatch.setattr(gpu, "SHARE", 3)
    monkeypatch.setattr(gpu, "SORTED", 400)
    for name in ("ring, many laps", "deck", "hash"):
        generator, _, _, dense = made(name)
        cut = generator.rows // 3
        scaled = Scaled(generator, [cut, generator.rows - cut], [2.0, 3.0], False)
        grad = torch.randint(-99, 99, (generator.rows,)).double()
        exact = dense[:cut].T @ grad[:cut] * 2 + dense[cut:].T @ grad[cut:] * 3
        assert torch.equal(adjoint(scaled, grad.float()), exact.float())


def test_rows_are_sorted_once_until_they_are_released(monkeypatch):
    sorts = []
    monkeypatch.setattr(
        torch, "sort", lambda x, sort=torch.sort, **how: sorts.append(1) or sort(x, **how)
    )
    hashed, grad = Hash(1_501, 301, 5), torch.randn(1_501)
    first = adjoint(hashed, grad)
    assert torch.equal(adjoint(hashed, grad), first) and len(sorts) == 1
    adjoint(hashed, grad[:700], 0, 700)  # instead of all
    adjoint(hashed, grad[700:], 700, 1_501)
    adjoint(hashed, grad[:700], 0, 700)
    assert len(sorts) == 3
    kernels.release()
    assert torch.equal(adjoint(hashed, grad), first) and len(sorts) == 4
    constraint = lincon.constrain(torch.nn.Linear(4, 4), "ring", dof=4)
    constraint.release()
    adjoint(hashed, grad)
    assert len(sorts) == 5


def test_views_that_are_strided_or_negate_are_read_as_their_values():
    hashed = Hash(901, 202, 5)
    free, grad = torch.randn(404)[::2], torch.randn(1_802)[::2]
    assert torch.equal(unpacked(hashed, free), unpacked(hashed, free.clone()))
    assert torch.equal(adjoint(hashed, grad), adjoint(hashed, grad.clone()))
    assert torch.equal(unpacked(hashed, torch._neg_view(free)), unpacked(hashed, -free))
    assert torch.equal(adjoint(hashed, torch._neg_view(grad)), adjoint(hashed, -grad))


def test_a_compiled_step_has_no_graph_break_and_the_same_gradient(monkeypatch):
    monkeypatch.setattr(one_nonzero, "FEW", 0)
    model, x = torch.nn.Linear(8, 8).to(DEVICE), torch.ones(2, 8).to(DEVICE)
    lincon.constrain(model, "hash", dof=0.3)
    model(x).sum().backward()
    expected = model.get_parameter("free").grad.clone()
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(x).sum().backward()
    torch.testing.assert_close(model.get_parameter("free").grad, expected)


@pytest.fixture
def fresh():
    found = kernels._gpu
    found.cache_clear()
    yield
    found.cache_clear()


def test_cuda_devices_get_triton_once_its_numbers_are_checked(fresh, monkeypatch):
    assert kernels._gpu(DEVICE) is gpu
    monkeypatch.setattr(kernels, "_gpu", lambda device: gpu)
    assert kernels.kernel_for(torch.device("cuda")) is gpu
    assert kernels.description(torch.device("cuda")) == "compiled (Triton)"


def test_what_does_not_compile_is_warned_of_once_and_not_used(fresh, monkeypatch):
    def check(device):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(gpu, "check", check)
    with pytest.warns(lincon.LinconWarning, match="no C compiler") as warned:
        assert kernels._gpu(DEVICE) is None and kernels._gpu(DEVICE) is None
    assert len(warned) == 1


def test_wrong_numbers_are_noticed_and_not_used(fresh, monkeypatch):
    monkeypatch.setattr(gpu, "accumulate", lambda *arguments: None)
    with pytest.warns(lincon.LinconWarning, match="wrong numbers"):
        assert kernels._gpu(DEVICE) is None
