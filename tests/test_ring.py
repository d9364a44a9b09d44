"""The ring: even use, unrelated laps and seeds, the same bits in any chunking."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lincon.counter import mix
from lincon.generators import Hash, Random, Ring, build
from lincon.kernels import Loop
from lincon.maps.permutation import images
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


def test_tiles_are_turned_by_quarters_and_cut_elsewhere_in_each_lap():
    dof, laps = 64 * 64 + 17, 8
    index, sign = Ring(dof * laps, dof, 1).entries(torch.arange(dof * laps))
    by_lap = index.view(laps, dof)
    assert len(set((by_lap[:, 1] % 64).tolist())) > 4  # the places of cuts
    tiles = by_lap[:, : 64 * 64].reshape(laps, 64, 4, 16)
    first = tiles[..., 0]
    # In a tile that is turned by r quarters, the first of quarter 4 - r follows the last of that before.
    turns = ((first - first.amin(2, keepdim=True)) // 16)[..., 0]
    assert set(turns.flatten().tolist()) >= {0, 1, 2, 3}
    assert bool(((tiles[..., 1:] - tiles[..., :-1]) % dof == 1).all())
    blocks = sign[: 64 * (len(sign) // 64)].view(-1, 64)
    assert len({tuple(row) for row in blocks.tolist()}) == len(blocks)


def test_a_lap_is_what_the_module_says_by_hand():
    ring = Ring(30, 10, 4, tile=4)
    index, _ = ring.entries(torch.arange(30))
    for lap in range(3):
        word = [int(ring._word(torch.tensor([lap]), number)) for number in range(8)]
        cut = (word[0] % 2**64 >> 1) % 10
        keys = torch.tensor(word[1:7])
        order = [*images(torch.arange(2), 2, keys).tolist(), 2]
        assert sorted(order) == [0, 1, 2]
        expected = []
        for slot, tile in enumerate(order):
            width = 4 if slot < 2 else 2
            turn = int(mix(torch.tensor(word[7]), torch.tensor(slot))) >> 30
            expected += [(cut + tile * 4 + (u + turn) % width) % 10 for u in range(width)]
        assert index[lap * 10 : lap * 10 + 10].tolist() == expected


def test_the_adjoint_is_the_same_bits_run_to_run_in_one_or_two_threads():
    ring, grad = Ring(2_000_000, 46_080), torch.randn(2_000_000)
    results = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        results.append(ring.adjoint(grad))
    assert torch.equal(results[0], results[1]) and torch.equal(results[1], results[2])


def test_nothing_is_kept_for_large_maps():
    rows = 21_258_240
    for generator in (Ring(rows, 46_080), Ring(rows, 2_359_296), Hash(rows, 46_080)):
        generator.unpack(torch.zeros(generator.dof), 0, 1 << 20)
        kept = [table for table in tables_of(generator) if not isinstance(table, Loop)]
        assert not any(kept)


def test_hash_and_random_leave_entries_unused_and_ring_does_not():
    rows, dof = 40_000, 20_000
    assert Ring(rows, dof).unused() == 0
    for cls in (Hash, Random):  # exp(-2) of them: 2,707, standard deviation below 50
        assert abs(cls(rows, dof).unused() - 2707) < 250


def test_fingerprints_of_large_generators_never_change():
    for case in json.loads(GOLDEN.read_text()):
        assert build(case["spec"]).fingerprint() == case["fingerprint"], case["spec"]


def test_auto_tile():
    sizes = (1, 31, 63, 64, 100, 2047, 2048, 46_080, 11_160_576)
    assert [Ring(10**6, dof).tile for dof in sizes] == [1, 1, 1, 2, 2, 32, 64, 64, 64]
