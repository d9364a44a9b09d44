"""Counter-based randomness and keyed permutations."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lincon.counter import below, bits, key, row_signs, signs, word_below, words
from lincon.maps.permutation import Permutation


def test_the_first_words_never_change():
    assert key(0) == 0xE220A8397B1DCDAF
    words = bits(key(1, 2), torch.arange(4)).tolist()
    assert words == GOLDEN


def test_keys_are_mixed_not_added():
    assert len({key(a, b) for a in range(40) for b in range(40)}) == 1600
    assert len({key(s) for s in (0, 1, -1, 2**64, 2**64 + 1, 2**65, -(2**64))}) == 7


@pytest.mark.parametrize("streams", [((0, 5), (1, 5)), ((0, 5), (0, 6)), ((7, 1), (8, 1))])
def test_neighbouring_streams_are_unrelated_at_every_shift(streams):
    n = 1 << 14
    a, b = (signs(bits(key(*s), torch.arange(n)), torch.float64) for s in streams)
    spectrum = torch.fft.irfft(torch.fft.rfft(a) * torch.fft.rfft(b).conj()) / n
    # n correlations of standard deviation 1/√n: their largest stays below 6 deviations (p about 3e-5).
    assert spectrum.abs().max() < 6 / n**0.5


def test_bits_are_balanced_and_independent_of_one_another():
    n = 1 << 15
    words = bits(key(3), torch.arange(n))
    planes = torch.stack([signs(words >> b, torch.float64) for b in range(64)])
    gram = planes @ planes.T / n - torch.eye(64, dtype=torch.float64)
    assert gram.abs().max() < 6 / n**0.5
    assert planes.mean(1).abs().max() < 6 / n**0.5


@pytest.mark.parametrize("start", [0, 12_345, (1 << 32) - 5_000, 7 << 32])
def test_words_are_balanced_and_independent_of_one_another(start):
    n = 1 << 15
    drawn = words(key(3, 1), torch.arange(start, start + n))
    assert int(drawn.min()) >= 0 and int(drawn.max()) < 1 << 32
    planes = torch.stack([signs(drawn >> b, torch.float64) for b in range(32)])
    gram = planes @ planes.T / n - torch.eye(32, dtype=torch.float64)
    assert gram.abs().max() < 6 / n**0.5
    assert planes.mean(1).abs().max() < 6 / n**0.5
    for lag in (1, 2, 3, 64, 1024):
        cross = planes[:, :-lag] @ planes[:, lag:].T / (n - lag)
        assert cross.abs().max() < 6 / (n - lag) ** 0.5


@pytest.mark.parametrize("other", [key(4, 1), key(3, 2), key(2, 1)])
def test_words_of_neighbouring_keys_are_unrelated_at_every_shift(other):
    n = 1 << 14
    for bit in (0, 16, 31):
        a = signs(words(key(3, 1), torch.arange(n)) >> bit, torch.float64)
        b = signs(words(other, torch.arange(n)) >> bit, torch.float64)
        spectrum = torch.fft.irfft(torch.fft.rfft(a) * torch.fft.rfft(b).conj()) / n
        assert spectrum.abs().max() < 6 / n**0.5


@pytest.mark.parametrize("lag", [1, 2, 16, 64, 4096])
def test_pairs_of_buckets_are_uniform(lag):
    """χ² of 64 x 64 cells: mean 4095, standard deviation 90.5; five of them."""
    n = 1 << 20
    bucket = word_below(words(key(11), torch.arange(n)), 64)
    counts = torch.bincount(bucket[:-lag] * 64 + bucket[lag:], minlength=4096).double()
    expected = (n - lag) / 4096
    assert abs(float(((counts - expected) ** 2 / expected).sum()) - 4095) < 5 * 90.5


def test_signs_of_rows_are_the_bits_of_a_draw_and_unrelated_to_their_neighbours():
    n = 1 << 15
    sign = row_signs(key(5), torch.arange(n))
    drawn = bits(key(5), torch.arange(n // 64))
    assert torch.equal(sign, signs(drawn.repeat_interleave(64) >> torch.arange(n) % 64))
    assert torch.equal(row_signs(key(5), torch.arange(77, 999)), sign[77:999])
    values = sign.double()
    assert abs(float(values.mean())) < 6 / n**0.5
    for lag in (1, 2, 3, 63, 64, 65, 128):
        assert abs(float((values[:-lag] * values[lag:]).mean())) < 6 / n**0.5


def test_values_do_not_depend_on_the_chunk():
    whole = bits(key(9), torch.arange(1000))
    parts = [bits(key(9), torch.arange(a, a + 7)) for a in range(0, 994, 7)]
    assert torch.equal(torch.cat(parts), whole[:994])


@given(st.integers(1, 2**31 - 1))
def test_below_is_below(bound):
    drawn = below(bits(key(bound), torch.arange(200)), bound)
    assert int(drawn.min()) >= 0 and int(drawn.max()) < bound


@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
def test_a_permutation_is_a_bijection_and_inverts(size, k):
    permutation, x = Permutation(size, k), torch.arange(size)
    image = permutation(x)
    assert torch.equal(image.sort().values, x)
    assert torch.equal(permutation.inverse(image), x)


def test_small_permutations_are_all_reached_evenly():
    counts: dict[tuple[int, ...], int] = {}
    for k in range(6000):
        image = tuple(Permutation(4, key(k))(torch.arange(4)).tolist())
        counts[image] = counts.get(image, 0) + 1
    # 24 permutations, 250 expected each, standard deviation about 15.5: six of them.
    assert len(counts) == 24 and all(abs(c - 250) < 93 for c in counts.values())


def test_the_same_bits_in_another_process_with_another_thread_count():
    code = (
        "import torch; torch.set_num_threads(1); import lincon.generators as g;"
        "f = torch.arange(1, 4001, dtype=torch.float64);"
        "print(*(int(cls(90001, 4000, 3).unpack(f).long().sum()) for cls in (g.Ring, g.Hash)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    from lincon.generators import Hash, Ring

    free = torch.arange(1, 4001, dtype=torch.float64)
    mine = [int(g.unpack(free).long().sum()) for g in (Ring(90001, 4000, 3), Hash(90001, 4000, 3))]
    assert [int(x) for x in other] == mine


GOLDEN = [-3852431601464221002, -8765521039925078805, 1208559866384426285, 2635599950721777556]
