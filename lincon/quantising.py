"""Quantisation of the free vector: integers of few bits, and a step for every so many of them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lincon.attaching.binding import check_changeable, warn_of_holders
from lincon.attaching.constraint import Constraint, constraints
from lincon.errors import LinconError, TargetError
from lincon.pruning import check_finite

SMALLEST = 64
"""Integers that share a step at least, where their number is left to lincon."""

STEPS = 1 << 13
"""Steps a free vector has at most then: 32 KiB of a file."""


def quantize(model: nn.Module, bits: int = 8, size: int | None = None) -> list[Constraint]:
    """Quantise the free vectors of a constrained model in place, symmetrically: W_j = step x integer.

    The free Parameter becomes one of integers, int8, that is not trained; a buffer `<free>_steps` holds the steps. The
    weights are generated from these, so what a file needs is in the state_dict, and nothing else is kept.

    Args:
        model: constrained, and trained.
        bits: of an integer, 2 to 8: from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1.
        size: neighbouring integers that share a step, which is what makes the largest of them fit. By default 64, or
            more for a long free vector, so that there are at most 8,192 steps.

    Returns:
        The constraints.

    Raises:
        TargetError: nothing is constrained. LinconError: other bits or sizes, a free vector that is quantised already,
        or that holds NaN or infinity, by name. The model is as it was then.
    """
    check_changeable(model)
    found = constraints(model)
    if not found:
        raise TargetError(
            f"{type(model).__name__} has no constraint to quantise; constrain it first."
        )
    if isinstance(bits, bool) or bits not in range(2, 9):
        raise LinconError(f"bits={bits!r}; give an integer from 2 to 8.")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise LinconError(f"size={size!r}; give a positive integer, or None.")
    check_finite(found)
    plans = [
        (c, n, *_integers(c._free(group), bits, size))
        for c in found
        for n, group in enumerate(c.groups)
    ]
    warn_of_holders([_replace(*plan) for plan in plans])
    return found


def shared(dof: int) -> int:
    """How many integers share a step, by default: a power of two."""
    return max(SMALLEST, 1 << max(0, -(-dof // STEPS) - 1).bit_length())


def _integers(free: Tensor, bits: int, size: int | None) -> tuple[Tensor, Tensor, int]:
    """Integers, steps, and how many integers share one."""
    together = min(size or shared(len(free)), len(free))
    return *to_integers(free.detach(), bits, together), together


def _replace(
    constraint: Constraint, number: int, codes: Tensor, steps: Tensor, size: int
) -> Tensor:
    """Put integers and steps in the place of a free vector; the old vector."""
    group, owner = constraint.groups[number], constraint.owner
    free, name = constraint._free(group), f"{group.free}_steps"
    while hasattr(owner, name):
        name += "_"
    owner.register_buffer(name, steps)
    integers = nn.Parameter(codes, requires_grad=False)
    constraint.replace_group(number, replace(group, steps=name, size=size), integers)
    return free


def to_integers(values: Tensor, bits: int, size: int) -> tuple[Tensor, Tensor]:
    """(n,) finite numbers -> (n,) int8 and their steps, (n / size rounded up,), of the type of ``values``.

    Steps are rounded down to that type, so that no product overflows; integers that would be beyond the last are the
    last. A group of zeros, or of numbers so small that their step is zero, becomes zeros.
    """
    most = 2 ** (bits - 1) - 1
    padded = torch.nn.functional.pad(values.double(), (0, -len(values) % size)).view(-1, size)
    exact = padded.abs().amax(1) / most
    steps = exact.to(values.dtype)
    steps = torch.where(
        steps.double() > exact, torch.nextafter(steps, torch.zeros_like(steps)), steps
    )
    wide = steps.double().unsqueeze(1)
    codes = (padded / wide.where(wide > 0, 1)).round().clamp(-most, most) * (wide > 0)
    return codes.view(-1)[: len(values)].to(torch.int8), steps
