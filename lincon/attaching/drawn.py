"""W₀ that is drawn from the seed (`offset="seed"`), so that a file needs none of its numbers.

Training in a random subspace around a random point, θ = θ₀ + P θ_d: Li et al., "Measuring the
intrinsic dimension of objective landscapes", ICLR 2018.

W₀ of row i is mean + deviation · z(i) with the mean and deviation of its tensor, where z(i) is a
quantile of N(0, 1) from G's own stream of integers. It is the same in any chunks, on any device,
and in any precision but for one rounding.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from lincon.counter import bits, key, normals
from lincon.maps.operators import operator
from lincon.maps.per_device import per_device
from lincon.shapes import Float, Float64

_STREAM = 203
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Drawn:
    """W₀ of a group, drawn from a seed.

    Attributes:
        seed: of the integers.
        sizes: the number of rows of each tensor.
        means: of each tensor: 0, or the value of a tensor that is initialised to a constant.
        deviations: the standard deviation of each tensor.

    >>> drawn = Drawn(seed=0, sizes=(2, 3), means=(0.0, 1.0), deviations=(0.5, 0.0))
    >>> drawn.rows(2, 5)
    tensor([1., 1., 1.], dtype=torch.float64)
    """

    seed: int
    sizes: tuple[int, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    handle: str = field(init=False, repr=False, compare=False)
    """What compilers know it by."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "handle", str(next(_numbers)))
        _live[self.handle] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return Drawn, (self.seed, self.sizes, self.means, self.deviations)

    @classmethod
    def like(cls, seed: int, tensors: Sequence[Tensor], deviations: Sequence[float]) -> "Drawn":
        """W₀ at the scale of given tensors, whose deviations are rounded to three digits.

        A tensor of equal values has them as its mean, and a deviation of 0.
        """
        first = [float(tensor.detach().reshape(-1)[0]) for tensor in tensors]
        constant = [
            bool((t.detach() == value).all()) for t, value in zip(tensors, first, strict=True)
        ]
        return cls(
            seed,
            tuple(tensor.numel() for tensor in tensors),
            tuple(value if same else 0.0 for value, same in zip(first, constant, strict=True)),
            tuple(
                0.0 if same else float(f"{deviation:.3g}")
                for deviation, same in zip(deviations, constant, strict=True)
            ),
        )

    def rows(self, start: int, stop: int) -> Float64[Tensor, " n"]:
        """W₀[start:stop], on the CPU."""
        sizes = torch.tensor(self.sizes, device="cpu")
        count = torch.arange(start, stop, device="cpu")
        tensor = torch.bucketize(count, sizes.cumsum(0), right=True)
        mean = torch.tensor(self.means, dtype=torch.float64, device="cpu")[tensor]
        deviation = torch.tensor(self.deviations, dtype=torch.float64, device="cpu")[tensor]
        return normals(bits(key(self.seed, _STREAM), count)).double().mul_(deviation).add_(mean)

    def rows_like(self, tensor: Tensor) -> Float[Tensor, " rows"]:
        """All of W₀, on the device and in the dtype of a tensor.

        It is a cache, as tables of G are: no state, no copy and no file has it.
        """
        if torch.compiler.is_compiling():
            origin: Tensor = torch.ops.lincon.drawn(tensor, self.handle)
            return origin
        return self.cached(tensor.device, tensor.dtype)

    @per_device
    def cached(self, device: torch.device, dtype: torch.dtype) -> Float[Tensor, " rows"]:
        """`rows_like`, outside of compilers."""
        total = sum(self.sizes)
        starts = range(0, total, _CHUNK)
        parts = [self.rows(start, min(total, start + _CHUNK)).to(dtype) for start in starts]
        return torch.cat(parts).to(device)


_numbers = itertools.count()
_live: WeakValueDictionary[str, Drawn] = WeakValueDictionary()


def _drawn(like: Tensor, handle: str) -> Tensor:
    # A copy, because a compiler may write over what an operator returns.
    return _live[handle].cached(like.device, like.dtype).clone()


def _drawn_shape(like: Tensor, handle: str) -> Tensor:
    return like.new_empty(sum(_live[handle].sizes))


operator("drawn(Tensor like, str handle) -> Tensor", _drawn, _drawn_shape)
