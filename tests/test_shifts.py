"""Shifted images grow with their strength."""

import pytest
import torch

from lincon import LinconError
from lincon.tasks.classification.data.shifts import SHIFTS, STRENGTHS


def smooth(n=8, channels=3, size=32):
    """Images with structure at all scales, in [0, 1]."""
    coarse = torch.nn.functional.interpolate(
        torch.rand(n, channels, 5, 5), size=size, mode="bicubic"
    ).clamp(0, 1)
    return 0.8 * coarse + 0.2 * torch.rand(n, channels, size, size)


def shifted(name, images, strength, seed=0):
    return SHIFTS[name](images, strength, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels, size", [(1, 8), (3, 32)])
@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_grow_with_strength_and_stay_in_range(name, channels, size):
    images = smooth(64, channels, size)
    kept, differences = images.clone(), []
    for strength in range(1, 6):
        changed = shifted(name, images, strength)
        assert changed.shape == images.shape and changed.dtype == images.dtype
        assert changed.min() >= 0 and changed.max() <= 1
        differences.append((changed - images).abs().mean().item())
    assert differences == sorted(set(differences)) and differences[0] > 0.005
    assert images.equal(kept)


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_are_set_by_the_generator_alone(name):
    images = smooth()
    first = shifted(name, images, 3)
    torch.manual_seed(123)
    assert shifted(name, images, 3).equal(first)
    assert shifted(name, images, 3, seed=1).equal(first) == (name in ("blur", "contrast"))


@pytest.mark.parametrize("strength", [0, 6, -1])
@pytest.mark.parametrize("name", SHIFTS)
def test_other_strengths_are_refused(name, strength):
    with pytest.raises(LinconError, match=f"{name} of strength {strength}: choose from 1 to 5"):
        shifted(name, smooth(), strength)


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_refuse_bytes(name):
    with pytest.raises(LinconError, match="uint8"):
        shifted(name, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 1)


def test_shifts_do_what_the_table_says():
    grey = torch.full((4, 1, 64, 64), 0.5)
    assert (shifted("noise", grey, 1) - 0.5).std().item() == pytest.approx(
        STRENGTHS["noise"][0], rel=0.05
    )
    two = torch.tensor([0.2, 0.6]).repeat(4).view(1, 1, 2, 4)
    assert shifted("contrast", two, 2).unique().tolist() == pytest.approx([0.3, 0.5])
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    spread = shifted("blur", point, 3)[0, 0]
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    variance = (spread.sum(0) * (torch.arange(33) - 16.0) ** 2).sum().item()
    assert variance == pytest.approx(STRENGTHS["blur"][2] ** 2, rel=0.05)
    point = torch.zeros(8, 1, 33, 33)
    point[:, 0, 16, 30] = 1
    turned = shifted("rotation", point, 5)
    rows = (turned * (torch.arange(33.0) - 16).view(-1, 1)).sum((1, 2, 3)) / turned.sum((1, 2, 3))
    assert (
        rows.abs().tolist() == pytest.approx([14 * 0.5] * 8, abs=0.2)
        and rows.min() < 0 < rows.max()
    )
