"""Tables of random numbers, for tones and clouds that differ from place to place on a surface."""

import torch
from torch import Tensor

from lincon.tasks.experiments.data.noise import noise


def _table(key: int, count: int) -> Tensor:
    return noise(torch.tensor([key]), count)[0] / 255 + 0.5


def _smooth(key: int, size: int, step: int) -> Tensor:
    """(size, size), from 0 to 1, periodic: random numbers ``step`` apart, interpolated between."""
    count = size // step
    coarse, place = _table(key, count * count).view(count, count), torch.arange(size)
    low, share = place // step, (place % step) / step
    rows = coarse[low] * (1 - share)[:, None] + coarse[(low + 1) % count] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, (low + 1) % count] * share


TONES = _table(1, 4096)
"""From 0 to 1."""

CLOUDS = 0.5 * _smooth(2, 128, 16) + 0.3 * _smooth(3, 128, 4) + 0.2 * _smooth(4, 128, 1)
"""(128, 128), from 0 to 1, periodic."""
