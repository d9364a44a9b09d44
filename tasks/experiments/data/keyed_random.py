"""Random numbers for each picture, a function of its key alone, drawn for a batch at a time."""

from math import prod

import torch
from torch import Tensor

from lincon.counter import bits, shift_right
from lincon.shapes import Bool, Float32, Int64

_BLOCK = 128
"""How many numbers a key gets at a time: one large operation replaces many small ones."""


class KeyedRandom:
    """A stream of random numbers for each key. Every call takes the next ones of each stream.

    Args:
        keys: one for each picture or person.

    >>> both = KeyedRandom(torch.tensor([7, 8])).uniform(0, 1, 3)
    >>> alone = KeyedRandom(torch.tensor([8])).uniform(0, 1, 3)
    >>> torch.equal(both[1:], alone)
    True
    """

    def __init__(self, keys: Int64[Tensor, " n"]) -> None:
        self.keys = keys
        self.position = 0  # of the next block, in every stream
        self.ahead = torch.empty(len(keys), 0)  # numbers that no call has taken yet

    def uniform(self, low: float, high: float, *shape: int) -> Float32[Tensor, "n ..."]:
        """Numbers of this shape for each key, uniform in [low, high)."""
        count = prod(shape)
        while self.ahead.shape[1] < count:
            self.ahead = torch.cat((self.ahead, self._next_block()), 1)
        taken, self.ahead = self.ahead[:, :count], self.ahead[:, count:]
        return taken.reshape(len(taken), *shape) * (high - low) + low

    def happens(self, probability: float, *shape: int) -> Bool[Tensor, "n ..."]:
        """Events that happen with this probability."""
        return self.uniform(0, 1, *shape) < probability

    def index(self, count: int, *shape: int) -> Int64[Tensor, "n ..."]:
        """Integers from 0 to ``count`` - 1, all equally likely."""
        return self.uniform(0, count, *shape).long().clamp(max=count - 1)

    def _next_block(self) -> Float32[Tensor, "n block"]:
        counter = torch.arange(self.position, self.position + _BLOCK).expand(len(self.keys), _BLOCK)
        self.position += _BLOCK
        # The upper 24 of 64 bits: as many as a float32 represents exactly.
        return shift_right(bits(self.keys[:, None], counter), 40).float() * 2**-24
