"""The ring: even use, unrelated laps and seeds, the same bits in any chunking."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lincon.generators import Hash, Random, Ring, build
from lincon.generators.one_nonzero import OneNonzero
from tests.cases import tables_of

GOLDEN = Path(__file__).parent / "golden" / "fingerprints.json"
ORDERS = st.sampled_from(
    [
        {},
        {"order": "deck"},
        {"tile": 1},
        {"tile": 8},
        {"tile": 16},
        {"tile": 32},
        {"permute": False},
    ]
)


@given(
    rows=st.integers(1, 3000), dof=st.integers(1, 400), seed=st.integers(0, 2**64), options=ORDERS
)
def test_every_entry_is_used_floor_or_ceil_times(rows, dof, seed, options):
    if options.get("tile", 1) > dof:
        options = {}
    uses = Ring(rows, dof, seed, **options).gram_diagonal()
    assert set(uses.tolist()) <= {float(rows // dof), float(-(-rows // dof))}
    assert uses.sum() == rows


@given(n=st.integers(1, 3000), options=ORDERS)
def test_no_compression_is_a_signed_bijection(n, options):
    if options.get("tile", 1) > n:
        options = {}
    index, _ = Ring(n, n, 3, **options).entries(torch.arange(n))
    assert torch.equal(index.sort().values, torch.arange(n))


@pytest.mark.parametrize(
    "options",
    [{"tile": 1}, {"tile": 16}, {"tile": 64}, {"order": "deck"}, {"sign": False}],
    ids=str,
)
def test_the_same_bits_in_any_chunking(options, monkeypatch):
    rows, dof = 50_000, 3001
    free = torch.randn(dof)
    whole = Ring(rows, dof, 9, **options).unpack(free)
    for size in (1, 777, 4096):
        cuts = range(0, rows, size) if size > 1 else range(0, 50)
        parts = torch.cat(
            [Ring(rows, dof, 9, **options).unpack(free, a, min(a + size, rows)) for a in cuts]
        )
        assert torch.equal(parts, whole[: len(parts)])


def decorrelation(a: Ring, b: Ring, first: slice, second: slice) -> float:
    """Cosine of two stretches of generated weights, from standard normal free vectors of their own seed each."""
    free = torch.randn(a.dof, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, y = a.unpack(free)[first], b.unpack(free)[second]
    return float(x @ y / (x.norm() * y.norm()))


@pytest.mark.parametrize(
    "options", [{"tile": 1}, {"tile": 16}, {"tile": 64}, {"order": "deck"}], ids=str
)
def test_laps_and_adjacent_seeds_are_uncorrelated(options):
    """Under independence a cosine has standard deviation 1/√dof; 150 of them stay below 4.5 (p about 1e-3)."""
    dof, laps = 16_384, 10
    bound = 4.5 / dof**0.5
    ring, neighbour = Ring(dof * laps, dof, 5, **options), Ring(dof * laps, dof, 6, **options)
    lap = [slice(k * dof, (k + 1) * dof) for k in range(laps)]
    for i in range(laps):
        for j in range(laps):
            if i < j:
                assert abs(decorrelation(ring, ring, lap[i], lap[j])) < bound
            assert abs(decorrelation(ring, neighbour, lap[i], lap[j])) < bound


@pytest.mark.parametrize("tile", [1, 16, 64])
def test_tiles_decorrelate_as_single_entries_do(tile):
    """Filters: 9-long runs and 64-long rows of generated weights, all pairs that share free entries.

    The mean square of inner products of different runs, over many draws of W, is what chance gives and no more:
    with independent signs it is (number of shared entries), for tiles as for single entries.
    """
    dof, rows = 2048, 8192
    ring = Ring(rows, dof, 3, tile=tile)
    free = torch.randn(40, dof, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights = torch.stack([ring.unpack(w) for w in free]).view(40, rows // 64, 64)
    gram = weights @ weights.transpose(1, 2) / 64
    off = gram - torch.diag_embed(torch.diagonal(gram, dim1=1, dim2=2))
    mean_square = off.square().sum((1, 2)).mean() / (128 * 127)
    # Independent weights would give 1/64; shared entries add 3 rows' worth of w⁴ terms spread over all pairs.
    expected = 1 / 64 + 3 * 64 * (3 - 1) / (127 * 64**2)
    assert abs(float(mean_square) / expected - 1) < 0.15
    assert abs(float(off.mean())) < 5 / (64 * (128 * 127) ** 0.5)


def test_pieces_of_a_tile_are_exchanged_and_signs_vary():
    ring = Ring(64 * 64 * 8, 64 * 64, 1, tile=64)
    index, sign = ring.entries(torch.arange(ring.rows))
    starts = index.view(-1, 4, 16)[:, :, 0] % 64 // 16
    assert len({tuple(order) for order in starts.tolist()}) == 4
    assert (
        len({tuple(row) for row in sign.view(-1, 64).tolist()}) == 8 * 64
    )  # no two tiles have the same signs


CASES = [
    (300_000, 20_011, {}),
    (300_000, 20_011, {"tile": 1}),
    (300_000, 2_011, {}),
    (500_000, 17_000, {"tile": 64}),
    (500_000, 170, {"tile": 8}),
    (400_000, 46_080, {"sign": False}),
    (300_000, 300_000, {}),
    (300_000, 250_000, {"permute": False}),
    (250_000, 20_011, {"order": "deck"}),
    (250_000, 700_000, {}),
    (2_000_000, 20_011, {}),
    (2_000_000, 42_516, {}),
    (2_500_000, 1_200_000, {}),
]


@pytest.mark.parametrize(("rows", "dof", "options"), CASES, ids=str)
def test_the_fast_path_is_taken_and_equals_the_reference_bit_for_bit(
    rows, dof, options, monkeypatch
):
    ring, free = Ring(rows, dof, 5, **options), torch.randn(dof)
    ranges = [
        (0, rows),
        (rows // 7, rows - rows // 11),
        (rows // 7 + 3, rows // 7 + 200),
        (rows // dof // 2 * dof, rows),
    ]
    single = []
    reference = OneNonzero._write
    monkeypatch.setattr(
        OneNonzero,
        "_write",
        lambda self, out, *args: (single.append(len(out)), reference(self, out, *args)),
    )
    for start, stop in ranges:
        expected = torch.empty(stop - start)
        reference(ring, expected, free, start)
        single.clear()
        assert torch.equal(ring.unpack(free, start, stop), expected)
        assert ring.order == "deck" or not single
        grad = torch.randn(stop - start, dtype=torch.float64)
        total = torch.zeros(dof, dtype=torch.float64)
        OneNonzero._accumulate(ring, total, grad, start)
        torch.testing.assert_close(ring.adjoint(grad, start, stop), total, rtol=1e-12, atol=1e-12)
        # In float32 each sum of n terms is off by at most n roundings of its largest partial sum.
        narrow, bound = ring.adjoint(grad.float(), start, stop), (rows / dof + 1) * 2**-23
        assert bool(
            ((narrow - total).abs() <= bound * ring_magnitude(ring, grad, start) + 1e-6).all()
        )


def ring_magnitude(ring: Ring, grad: torch.Tensor, start: int) -> torch.Tensor:
    """Sum of |grad| over the rows of each entry."""
    total = torch.zeros(ring.dof, dtype=torch.float64)
    unsigned = Ring(ring.rows, ring.dof, ring.seed, **{**ring.options(), "sign": False})
    OneNonzero._accumulate(unsigned, total, grad.abs(), start)
    return total


def test_the_adjoint_is_the_same_bits_run_to_run_in_one_or_two_threads():
    ring, grad = Ring(2_000_000, 46_080), torch.randn(2_000_000)
    results = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        results.append(ring.adjoint(grad))
    assert torch.equal(results[0], results[1]) and torch.equal(results[1], results[2])


def test_what_is_resident_is_below_one_percent_of_the_weights():
    rows = 21_258_240
    for dof in (46_080, 2_359_296, 11_160_576):
        ring = Ring(rows, dof)
        ring.unpack(torch.zeros(dof), 0, 1 << 20)
        (cycle,) = tables_of(ring)
        held = sum(t.numel() * t.element_size() for t in cycle)
        assert held < 0.01 * 4 * rows
    hashed = Hash(rows, 46_080)
    hashed.unpack(torch.zeros(46_080), 0, 1 << 16)
    assert not tables_of(hashed)


def test_hash_and_random_leave_entries_unused_and_ring_does_not():
    rows, dof = 40_000, 20_000
    assert Ring(rows, dof).unused() == 0
    for cls in (Hash, Random):  # exp(-2) of them: 2,707, standard deviation below 50
        assert abs(cls(rows, dof).unused() - 2707) < 250


def test_fingerprints_of_large_generators_never_change():
    for case in json.loads(GOLDEN.read_text()):
        assert build(case["spec"]).fingerprint() == case["fingerprint"], case["spec"]


def test_auto_tile():
    assert [Ring(10**6, d).tile for d in (100, 16_383, 16_384, 46_080, 2_359_296, 11_160_576)] == [
        1,
        1,
        16,
        32,
        1024,
        1024,
    ]
    for dof in (16_384, 46_080, 99_999, 2_359_296):
        assert dof // Ring(10**6, dof).tile >= 1000


@pytest.mark.parametrize("dof", [20_011, 42_516, 65_536])
def test_tensors_of_any_sizes_are_looked_up_and_never_computed_entry_by_entry(dof, monkeypatch):
    """What a training step asks for: multipliers of tensors that begin and end anywhere in tiles and laps."""
    rows, free = 1_000_000, torch.randn(dof)
    ring = Ring(rows, dof, 3)
    cuts = (
        torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:40].sort().values.tolist()
    )
    segments = [(low, high, 1.0 + low / rows) for low, high in pairwise([0, *cuts, rows])]
    index, sign = ring.entries(torch.arange(rows))
    scale = torch.cat([torch.full((high - low,), scale) for low, high, scale in segments])
    ring.unpack(free)  # makes the tables
    monkeypatch.setattr(Ring, "entries", None)
    out, grad = torch.empty(rows), torch.randn(rows, dtype=torch.float64)
    ring.write(out, free, 0, segments)
    assert torch.equal(out, free[index] * sign * scale)
    total = torch.zeros(dof, dtype=torch.float64)
    ring.accumulate(total, grad, 0, segments)
    scales = torch.cat(
        [torch.full((high - low,), scale, dtype=torch.float64) for low, high, scale in segments]
    )
    expected = torch.zeros(dof, dtype=torch.float64).index_add_(0, index, grad * sign * scales)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
