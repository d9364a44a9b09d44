"""Quantisation of the free vector: integers of few bits, where neighbours share a step."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lincon.attaching.binding import check_changeable, warn_of_stale_optimizers
from lincon.attaching.constraint import Constraint, constraints
from lincon.errors import LinconError, TargetError
from lincon.pruning import check_finite
from lincon.shapes import Float, Int8

SMALLEST = 64
"""The fewest integers that share a step by default."""

STEPS = 1 << 13
"""The most steps of a free vector by default: 32 KiB of a file."""


def quantize(model: nn.Module, bits: int = 8, size: int | None = None) -> list[Constraint]:
    """Quantise the free vectors of a constrained model in place: W_j = step x integer.

    The free Parameter becomes an int8 one that is not trained. A buffer `<free>_steps` holds the
    steps. The weights are generated from both, so the state_dict holds everything a file needs.

    If it raises an error, the model is unchanged.

    Args:
        model: a constrained and trained model.
        bits: the width of an integer, 2 to 8: from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1.
        size: the number of neighbouring integers that share a step; the largest of them sets it. By
            default 64, or more for a long free vector, so that there are at most 8,192 steps.

    Returns:
        The constraints.

    Raises:
        TargetError: nothing is constrained.
        LinconError: ``bits`` or ``size`` is out of range, or a free vector is quantised already or
            holds NaN or infinity.

    >>> import lincon
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> quantised = lincon.quantize(model, bits=4)
    >>> model.free.dtype, model.free_steps.shape
    (torch.int8, torch.Size([1]))
    """
    check_changeable(model)
    placed = constraints(model)
    if not placed:
        raise TargetError(
            f"{type(model).__name__} has no constraint to quantise; constrain it first."
        )
    if isinstance(bits, bool) or bits not in range(2, 9):
        raise LinconError(f"bits={bits!r}; give an integer from 2 to 8.")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise LinconError(f"size={size!r}; give a positive integer, or None.")
    check_finite(placed)
    with torch.inference_mode(False):  # steps can be trained on, and a file saved
        quantised = _all_quantised(placed, bits, size)
    warn_of_stale_optimizers([vector.put() for vector in quantised])
    return placed


def _all_quantised(placed: list[Constraint], bits: int, size: int | None) -> list["_Quantised"]:
    return [
        _quantised(constraint, number, bits, size)
        for constraint in placed
        for number in range(len(constraint.vectors))
    ]


def default_size(dof: int) -> int:
    """The number of integers that share a step by default, a power of two.

    >>> default_size(1000), default_size(11_160_576)
    (64, 2048)
    """
    return max(SMALLEST, 1 << max(0, -(-dof // STEPS) - 1).bit_length())


@dataclass(frozen=True)
class _Quantised:
    """Integers and steps for a group of a constraint."""

    constraint: Constraint
    number: int
    codes: Tensor
    steps: Tensor
    size: int

    def put(self) -> Tensor:
        """Replace the free vector, and return the old one."""
        vector, owner = self.constraint.vectors[self.number], self.constraint.owner
        old, name = vector.parameter, f"{vector.group.free}_steps"
        while hasattr(owner, name):
            name += "_"
        owner.register_buffer(name, self.steps)
        group = replace(vector.group, steps=name, size=self.size)
        integers = nn.Parameter(self.codes, requires_grad=False)
        self.constraint.replace_group(self.number, group, integers)
        return old


def _quantised(constraint: Constraint, number: int, bits: int, size: int | None) -> _Quantised:
    free = constraint.vectors[number].parameter.detach()
    size = min(size or default_size(len(free)), len(free))
    return _Quantised(constraint, number, *to_integers(free, bits, size), size)


def to_integers(
    values: Float[Tensor, " n"], bits: int, size: int
) -> tuple[Int8[Tensor, " n"], Float[Tensor, " steps"]]:
    """Quantise finite numbers to integers and steps.

    There are n / size steps, rounded up, in the dtype of ``values``. They are rounded down to that
    dtype, so that no product overflows, and integers out of range are clamped. A run of zeros, or
    of numbers so small that their step is zero, becomes zeros.

    >>> codes, steps = to_integers(torch.tensor([0.7, -0.35, 0.1]), bits=4, size=3)
    >>> codes.tolist(), round(float(steps), 3)
    ([7, -4, 1], 0.1)
    """
    from einops import rearrange

    most = 2 ** (bits - 1) - 1
    padded = torch.nn.functional.pad(values.double(), (0, -len(values) % size))
    runs = rearrange(padded, "(run size) -> run size", size=size)
    exact = runs.abs().amax(1) / most
    steps = exact.to(values.dtype)
    below = torch.nextafter(steps, torch.zeros_like(steps))
    steps = torch.where(steps.double() > exact, below, steps)
    divisors = rearrange(steps.double(), "run -> run 1")
    codes = (runs / divisors.where(divisors > 0, 1)).round().clamp(-most, most) * (divisors > 0)
    return rearrange(codes, "run size -> (run size)")[: len(values)].to(torch.int8), steps
