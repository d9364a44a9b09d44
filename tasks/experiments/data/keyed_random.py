"""Random numbers of each picture, a function of its key alone, drawn for a whole batch at a time."""

from math import prod

import torch
from torch import Tensor

from lincon.counter import bits, shift_right

_BLOCK = (
    128  # numbers are made so many at a time: one large operation in the place of many small ones
)


class KeyedRandom:
    """A stream of numbers for each key: calls take the next ones, as many for every key.

    Args:
        keys: (n,), int64, one a picture or person.
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys, self.drawn = keys, 0
        self.ahead = torch.empty(len(keys), 0)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(n, *shape), float32, uniform in [low, high)."""
        count = prod(shape)
        while self.ahead.shape[1] < count:
            self.ahead = torch.cat((self.ahead, self._block()), 1)
        taken, self.ahead = self.ahead[:, :count], self.ahead[:, count:]
        return taken.reshape(len(taken), *shape) * (high - low) + low

    def happens(self, probability: float, *shape: int) -> Tensor:
        """(n, *shape), bool."""
        return self.uniform(0, 1, *shape) < probability

    def index(self, count: int, *shape: int) -> Tensor:
        """(n, *shape), int64, from 0 to ``count`` - 1, all equally likely."""
        return self.uniform(0, count, *shape).long().clamp(max=count - 1)

    def _block(self) -> Tensor:
        counter = torch.arange(self.drawn, self.drawn + _BLOCK).expand(len(self.keys), _BLOCK)
        self.drawn += _BLOCK
        return shift_right(bits(self.keys[:, None], counter), 40).float() * 2**-24
