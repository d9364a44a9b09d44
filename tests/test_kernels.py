"""Compiled kernels: the bits of torch's operations, on every path, with any threads and processes."""

import mmap
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import lincon
from lincon import kernels
from lincon.errors import LinconError
from lincon.generators import Codebook, Dense, Fold, Hash, Mask, Random, Ring, Sparse, one_nonzero
from lincon.generators.one_nonzero import OneNonzero
from lincon.kernels import team as threads
from lincon.maps.piece import Piece
from lincon.maps.scaled import Scaled
from tests.models import convnet, images

pytest.importorskip("numba")


pytestmark = pytest.mark.usefixtures("by_kernels")


def codebook(rows, dof):
    return Codebook(rows, dof, index=torch.arange(rows) * 7919 % (dof + 1))


MAPS = {
    "ring": (Ring(300_001, 20_011, 5), "laps"),
    "ring, one lap and a bit": (Ring(300_001, 290_000, 5), "laps"),
    "ring, more dof than rows": (Ring(30_001, 290_000, 5), "laps"),
    "ring, small": (Ring(2_001, 301, 5), "tabled"),
    "ring, small and many laps": (Ring(300_001, 301, 5), "laps"),
    "ring, tile 1": (Ring(300_001, 2_011, 5, tile=1), "laps"),
    "ring, tile 5": (Ring(300_001, 2_011, 5, tile=5), "laps"),
    "ring, tile 2": (Ring(300_001, 101, 5), "laps"),
    "ring, tile 4": (Ring(300_001, 201, 5), "laps"),
    "ring, tile 8": (Ring(300_001, 401, 5), "laps"),
    "ring, tile 16": (Ring(300_001, 2_011, 5, tile=16), "laps"),
    "ring, tile 32": (Ring(300_001, 1_501, 5), "laps"),
    "ring, tile 256": (Ring(300_001, 20_011, 5, tile=256), "laps"),
    "ring, tile of all": (Ring(100_001, 20_011, 5, tile=20_011), "laps"),
    "ring, unpermuted": (Ring(100_001, 2_011, 5, permute=False), "laps"),
    "ring, unsigned": (Ring(100_001, 2_011, 5, sign=False), "laps"),
    "deck": (Ring(300_001, 2_011, 5, order="deck"), "decks"),
    "deck, unpermuted": (Ring(300_001, 2_011, 5, order="deck", permute=False), "laps"),
    "hash": (Hash(300_001, 2_011, 5), "buckets"),
    "hash, small": (Hash(30_001, 2_011, 5), "tabled"),
    "random": (Random(300_001, 2_011, 5), "buckets"),
    "fold": (Fold(100_001, 2_011, 5), "folds"),
    "fold, chunk": (Fold(100_001, 2_011, 5, chunk=33), "folds"),
    "fold, small chunk": (Fold(100_001, 2_011, 5, chunk=8), "tabled"),
    "codebook": (codebook(100_001, 200), "tabled"),
    "codebook, large": (codebook(400_001, 70_000), "tabled"),
}
GENERATORS = pytest.mark.parametrize(("generator", "loop"), MAPS.values(), ids=MAPS)


PROJECTIONS = {
    "dense": (Dense(30_001, 101, 5), "rademacher"),
    "dense, whole words": (Dense(20_001, 128, 5), "rademacher"),
    "dense, wider than a block": (Dense(3_001, 2_999, 5), "rademacher"),
    "sparse": (Sparse(30_001, 2_011, 5), "strata"),
    "sparse, a row": (Sparse(1, 1, 5), "strata"),
}
SUMS = pytest.mark.parametrize(("generator", "loop"), PROJECTIONS.values(), ids=PROJECTIONS)


def ranges(generator):
    rows, dof = generator.rows, generator.dof
    lap = rows // dof // 2 * dof
    return [(0, rows), (rows // 7 + 3, rows - rows // 11), (rows - 65, rows), (lap, lap), (7, 8)]


def reference(generator, function, *arguments):
    """What torch's operations make of the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_nonzero, "kernel_for", lambda device: None)
        return function(generator, *arguments)


@GENERATORS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_kernels_are_taken_and_unpack_to_the_same_bits(generator, loop, dtype, monkeypatch):
    free = torch.randn(generator.dof).to(dtype)
    for start, stop in ranges(generator):
        expected = reference(generator, type(generator).unpack, free, start, stop)
        with monkeypatch.context() as patch:
            patch.setattr(one_nonzero, "chunks", None)  # torch's operations need it
            assert torch.equal(generator.unpack(free, start, stop), expected)
    assert generator._loop_on(free.device).name == loop


@GENERATORS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_adjoint_adds_in_the_order_of_rows(generator, loop, dtype, monkeypatch):
    """`index_add_` on a CPU does so too: not a bit may differ."""
    for start, stop in ranges(generator):
        grad = torch.randn(stop - start).to(dtype)
        expected = reference(generator, type(generator).adjoint, grad, start, stop)
        with monkeypatch.context() as patch:
            patch.setattr(one_nonzero, "chunks", None)
            assert torch.equal(generator.adjoint(grad, start, stop), expected)


@pytest.mark.parametrize(("rows", "slots"), [(300_001, 4_695), (1 << 26, 0)])
def test_a_ring_draws_its_slots_once_if_they_are_few(rows, slots):
    assert len(Ring(rows, 20_011).loop().arrays[1]) == slots


@GENERATORS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_w0_is_added_in_the_same_pass(generator, loop, dtype, monkeypatch):
    rows = generator.rows
    scaled = Scaled(generator, [rows // 3, rows - rows // 3], [0.7, 1.3], False)
    free, origin = torch.randn(generator.dof).to(dtype), torch.randn(rows).to(dtype)
    for start, stop in [(0, rows), (rows // 3 - 5, rows - 7)]:
        expected = reference(scaled, Scaled.unpack, free, start, stop) + origin[start:stop]
        with monkeypatch.context() as patch:
            patch.setattr(Tensor, "add_", None)
            made = scaled.prepared_rows(free, start, stop, origin)
        assert torch.equal(made, expected)


def test_infinite_and_missing_numbers_in_16_bits():
    ring = Ring(40_001, 2_011)
    for dtype in (torch.bfloat16, torch.float16):
        free = torch.randn(ring.dof).to(dtype)
        free[:4] = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0])
        expected = reference(ring, Ring.unpack, free)
        assert torch.equal(ring.unpack(free).nan_to_num(7.0), expected.nan_to_num(7.0))
        grad = torch.full((ring.rows,), 6e4).to(dtype)
        assert torch.equal(ring.adjoint(grad), reference(ring, Ring.adjoint, grad))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("generator", [MAPS["ring"][0], MAPS["hash"][0]])
def test_gradients_lie_anywhere_and_may_be_empty_or_of_the_same_rows(generator, dtype):
    """The heap and a mapping of memory are 2^44 numbers apart; pieces are walked one by one."""
    rows = generator.rows
    whole = torch.randn(rows).to(dtype)
    mapped = torch.frombuffer(mmap.mmap(-1, 2 * rows * whole.itemsize), dtype=dtype)
    mapped[: rows - 9] = whole[9:]
    here, there = torch.cat([whole[:9]]), mapped[: rows - 9]
    pieces = [Piece(0, whole[:0].clone()), Piece(0, here), Piece(9, there), Piece(9, there)]
    total = torch.zeros(generator.dof)
    generator.accumulate_all(total, pieces)
    expected = torch.zeros(generator.dof)
    for piece in pieces[1:]:
        generator.accumulate(expected, piece.rows.float(), piece.start)
    assert torch.equal(total, expected)


def test_every_half_and_every_rounding():
    """All 65,536 numbers of 16 bits, and float32 around the middle of two of them."""
    identity = Fold(1 << 16, 1 << 16, chunk=1 << 16)
    sign = identity.unpack(torch.ones(1 << 16))
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        halves = every.view(dtype)
        total = torch.zeros(1 << 16)
        identity.accumulate(total, halves, 0)
        order = identity.entries(torch.arange(1 << 16))[0]
        assert torch.equal(total[order].nan_to_num(7), (halves.float() * sign).nan_to_num(7))
        middle = (halves.double() * (1 + 2.0**-12)).nan_to_num(1.0)
        for scale in (1.0, 1.0 + 2.0**-9, 1.0 + 2.0**-11, 2.0**-12):
            scaled = Scaled(identity, [1 << 16], [scale], False)
            free = middle.to(dtype)
            made = scaled.prepared_rows(free, 0, 1 << 16)
            expected = reference(scaled, Scaled.unpack, free)
            assert torch.equal(made.nan_to_num(7), expected.nan_to_num(7))


@GENERATORS
def test_tensors_of_any_sizes_with_their_multipliers_in_one_pass(generator, loop):
    rows, dof = generator.rows, generator.dof
    draw = torch.Generator().manual_seed(0)
    cuts = torch.randperm(rows - 1, generator=draw)[:40].add(1).sort().values.tolist()
    sizes = [high - low for low, high in pairwise([0, *cuts, rows])]
    scaled = Scaled(generator, sizes, [1 + number / 7 for number in range(len(sizes))], False)
    free, grad = torch.randn(dof), torch.randn(rows)
    for start, stop in [(0, rows), (cuts[3] + 5, cuts[-3] - 5)]:
        expected = reference(scaled, Scaled.unpack, free, start, stop)
        assert torch.equal(scaled.unpack(free, start, stop), expected)
        part = grad[start:stop]
        expected = reference(scaled, Scaled.adjoint, part, start, stop)
        assert torch.equal(scaled.adjoint(part, start, stop), expected)


@SUMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sums_of_many_entries_are_those_of_float64_to_their_rounding(generator, loop, dtype):
    """One rounding of the type of the weights, after sums in float32 or wider."""
    scales = [1.0, 0.5] if generator.rows > 1 else [0.5]
    sizes = [generator.rows // 3, generator.rows - generator.rows // 3][-len(scales) :]
    scaled = Scaled(generator, sizes, scales, False)
    free, grad = torch.randn(generator.dof).to(dtype), torch.randn(generator.rows).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    eps = 60 * torch.finfo(wide).eps + (torch.finfo(dtype).eps if dtype != wide else 0)
    for start, stop in ranges(generator) if generator.rows > 1 else [(0, 1), (0, 0)]:
        expected = reference(scaled, Scaled.unpack, free.double(), start, stop)
        got = scaled.unpack(free, start, stop).double()
        torch.testing.assert_close(got, expected, rtol=eps, atol=eps)
        expected = reference(scaled, Scaled.adjoint, grad[start:stop].double(), start, stop)
        got = scaled.adjoint(grad[start:stop], start, stop).double()
        torch.testing.assert_close(got, expected, rtol=eps, atol=eps)
    assert generator._loop_on(free.device).name == loop
    assert "compiled" in generator.made_by(free.device)


def test_a_sparse_map_that_is_too_large_to_be_kept_is_drawn_to_the_same_bits(monkeypatch):
    free, grad = torch.randn(2_011), torch.randn(30_001)
    kept, drawn = Sparse(30_001, 2_011, 5), Sparse(30_001, 2_011, 5)
    expected = kept.unpack(free), kept.adjoint(grad)
    monkeypatch.setattr("lincon.generators.sparse.CACHE_BYTES", 0)
    assert torch.equal(drawn.unpack(free), expected[0])
    assert torch.equal(drawn.adjoint(grad), expected[1])


@pytest.mark.parametrize(
    "name",
    [
        "ring",
        "ring, small and many laps",
        "hash",
        "fold",
        "fold, chunk",
        "deck",
        "codebook",
        "dense",
        "sparse",
    ],
)
def test_the_same_bits_with_any_number_of_threads(name, monkeypatch):
    generator, _ = (MAPS | PROJECTIONS)[name]
    monkeypatch.setattr("lincon.kernels.team.SHARE", 1000)
    monkeypatch.setattr("lincon.kernels.cpu.FAR", 100)
    monkeypatch.setattr("lincon.kernels.cpu.LONG", 100)
    for dtype in (torch.float32, torch.bfloat16):
        free, grad = torch.randn(generator.dof).to(dtype), torch.randn(generator.rows).to(dtype)
        results = []
        try:
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                results.append((generator.unpack(free), generator.adjoint(grad)))
        finally:
            torch.set_num_threads(1)
        for unpacked, adjoint in results[1:]:
            assert torch.equal(unpacked, results[0][0]) and torch.equal(adjoint, results[0][1])


@pytest.mark.parametrize("high", [1 << 31, 1 << 32, 1 << 33, 5 << 32])
def test_rows_beyond_32_bits(high):
    dof, rows = 3_000, high + 200_000
    free = torch.randn(dof)
    for generator in (
        Ring(rows, dof),
        Ring(rows, dof, order="deck"),
        Hash(rows, dof),
        Fold(rows, dof),
    ):
        for start in (high - 500, high + 70_001):
            expected = reference(generator, type(generator).unpack, free, start, start + 1_000)
            assert torch.equal(generator.unpack(free, start, start + 1_000), expected)
            grad = torch.randn(1_000)
            expected = reference(generator, type(generator).adjoint, grad, start, start + 1_000)
            assert torch.equal(generator.adjoint(grad, start, start + 1_000), expected)


def test_rows_of_a_ring_larger_than_31_bits():
    dof = (1 << 31) + 12_345
    ring = Ring(3 * dof, dof)
    index, _ = ring.entries(torch.arange(dof - 2_000, dof + 2_000))
    assert len(index.unique()) >= 2_000 and int(index.max()) < dof and int(index.min()) >= 0
    with pytest.raises(lincon.LinconError, match="31 random bits"):
        Hash(3 * dof, dof)


def test_a_bad_place_in_memory_is_never_asked_for():
    """Strided free vectors and gradients are made contiguous, strided results are left to torch."""
    ring = Ring(300_001, 20_011, 5)
    free, grad = torch.randn(2 * ring.dof)[::2], torch.randn(2 * ring.rows)[::2]
    assert torch.equal(ring.unpack(free), ring.unpack(free.clone()))
    assert torch.equal(ring.adjoint(grad), ring.adjoint(grad.clone()))
    out = torch.zeros(2 * 1000)
    ring.write(out[::2], free.contiguous(), 0)
    assert torch.equal(out[::2], ring.unpack(free, 0, 1000)) and not out[1::2].any()


def test_the_storage_of_a_tensor_can_be_resized_afterwards():
    """As FSDP frees a parameter; `Tensor.numpy` would forbid it for ever."""
    ring = Ring(30_001, 2_048, 5)
    free, grad = torch.randn(ring.dof), torch.randn(ring.rows)
    for tensor in (free, grad, ring.unpack(free), ring.adjoint(grad)):
        tensor.untyped_storage().resize_(0)


def unpacked_total():
    """By NumPy: torch's own threads do not survive a fork."""
    torch.set_num_threads(2)
    free = torch.from_numpy(np.arange(20_011, dtype=np.float32))
    return float(Ring(600_000, 20_011, 5).unpack(free).numpy().sum(dtype=np.float64))


def test_loops_run_in_the_threads_of_torch_where_it_has_a_team(monkeypatch):
    """And in a pool where it has none, with the same bits."""
    monkeypatch.setattr(threads, "POOL_SHARE", 1000)
    ring, free = Ring(600_000, 20_011, 5), torch.randn(20_011)
    expected, team = ring.unpack(free), threads._team(os.getpid())
    calls = []

    class Counted(threads.Team):
        def run(self, *arguments):
            calls.append(arguments[2])
            team.run(*arguments)

    if team is not None:
        counted = Counted(*team)
        monkeypatch.setattr(threads, "_team", lambda process: counted)
    torch.set_num_threads(2)
    try:
        assert torch.equal(ring.unpack(free), expected)
        monkeypatch.setattr(threads, "_team", lambda process: None)
        assert torch.equal(ring.unpack(free), expected)
    finally:
        torch.set_num_threads(1)
    assert calls == ([] if team is None else [2])
    if Path(torch.__file__).parent.joinpath("lib", "libtorch_cpu.so").exists():
        assert team is not None


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_forked_and_spawned_processes_have_threads_of_their_own(method):
    try:
        expected = unpacked_total()
    finally:
        torch.set_num_threads(1)
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(unpacked_total).result(timeout=100) == expected


FORKING = """
import multiprocessing, sys, numpy, torch, lincon
from lincon.generators import Ring
torch.set_num_threads(2)
torch.ones(1 << 20).add(1)  # torch has its threads
def total():
    free = torch.from_numpy(numpy.arange(20_011, dtype=numpy.float32))
    return float(Ring(600_000, 20_011, 5).unpack(free).numpy().sum(dtype=numpy.float64))
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply_async(total).get(timeout=60) == total())
"""


def test_a_forked_process_may_be_the_first_to_run_a_kernel():
    run = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=200
    )
    assert run.stdout.strip() == "True", run.stderr


def test_many_threads_at_once():
    ring, free = Ring(600_000, 20_011, 5), torch.randn(20_011)
    expected = ring.unpack(free)
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(each, expected) for each in pool.map(ring.unpack, [free] * 16))


def test_a_compiled_step_has_no_graph_break_and_the_same_gradient():
    model, x = convnet(), images()
    lincon.constrain(model, "ring", dof=0.3)
    model(x).sum().backward()
    expected = model.get_parameter("free").grad.clone()
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(x).sum().backward()
    torch.testing.assert_close(model.get_parameter("free").grad, expected)


WITHOUT = """
import sys, torch
sys.modules["numba"] = None  # as if it were not installed
import importlib.util
importlib.util.find_spec, real = (
    lambda name, *rest: None if name == "numba" else real(name, *rest)
), importlib.util.find_spec
import lincon
from lincon.generators import Ring, Hash
for generator in (Ring(300_000, 20_011, 5), Hash(300_000, 2_011, 5)):
    free = torch.arange(generator.dof).double()
    print(int((generator.unpack(free) * torch.arange(300_000)).sum()))
model = torch.nn.Linear(8, 8)
lincon.constrain(model, "ring", dof=0.5)
print(lincon.summary(model))
"""


def test_without_numba_torch_makes_the_same_and_the_summary_says_so():
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    ring, hashed, *summary = run.stdout.splitlines()
    for generator, total in ((Ring(300_000, 20_011, 5), ring), (Hash(300_000, 2_011, 5), hashed)):
        free = torch.arange(generator.dof).double()
        assert int(total) == int((generator.unpack(free) * torch.arange(300_000)).sum())
    assert "lincon-torch[fast]" in " ".join(summary)
    model = torch.nn.Linear(8, 8)
    lincon.constrain(model, "ring", dof=0.5)
    assert "compiled" in str(lincon.summary(model)) and "[fast]" not in str(lincon.summary(model))


def test_a_numba_that_cannot_be_imported_is_warned_of_and_not_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "lincon.kernels.cpu", None)
    monkeypatch.delattr(kernels, "cpu", raising=False)
    with pytest.warns(lincon.LinconWarning, match="numba cannot be imported"):
        assert kernels._cpu.__wrapped__() is None


def test_a_subclass_with_its_own_way_is_taken_at_its_word():
    class Doubled(OneNonzero):
        name = "doubled"

        def entries(self, rows):
            return rows % self.dof, None

        def _write(self, out, prepared, start):
            super()._write(out, prepared, start)
            out.mul_(2)

    assert Doubled(6, 3).unpack(torch.ones(3)).tolist() == [2.0] * 6


def test_a_view_that_negates_is_read_as_its_values():
    class Paired(OneNonzero):
        name = "paired"

        def entries(self, rows):
            return rows // 2, None

    ring = Ring(rows=4096, dof=2048)
    masked = Mask.of(ring, torch.arange(4096) % 3 > 0)
    for generator in (Paired(rows=8, dof=4), masked, ring):
        free, grad = torch.randn(generator.dof), torch.randn(generator.rows)
        assert torch.equal(generator.unpack(torch._neg_view(free)), generator.unpack(-free))
        assert torch.equal(generator.adjoint(torch._neg_view(grad)), generator.adjoint(-grad))
    ring.unpack(free, out=torch._neg_view(out := torch.zeros(ring.rows)))
    assert torch.equal(-out, ring.unpack(free))
    one = torch.complex(torch.ones(1), torch.ones(1)).conj().imag  # -1, over memory that has 1
    assert torch.equal(Paired(rows=2, dof=1).unpack(one), -torch.ones(2))


def test_an_index_that_is_no_entry_is_refused_with_and_without_kernels(monkeypatch):
    class Beside(OneNonzero):
        name = "beside"
        shift = 0

        def entries(self, rows):
            return rows % self.dof + self.shift, None

    for shift in (-1, 1):
        monkeypatch.setattr(Beside, "shift", shift)
        with pytest.raises(LinconError, match="within"):
            Beside(rows=9, dof=3).unpack(torch.ones(3))
        with pytest.raises(LinconError, match="within"):
            Beside(rows=9, dof=3).adjoint(torch.ones(9))


def test_a_map_that_is_a_table_keeps_no_other():
    generator = codebook(1_001, 200)
    generator.unpack(torch.randn(200))
    assert generator._loop_on(torch.device("cpu")).index is generator.tables()["index"]
