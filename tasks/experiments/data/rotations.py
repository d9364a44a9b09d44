"""Rotations in space, with the same bits whatever else is in the batch.

Elementwise sums and products are rounded alike in a batch of any size. Sines and products of
matrices are not, so a table holds the sines, and the products are written out.
"""

from math import pi, sin

import torch
from torch import Tensor

from lincon.shapes import Float, Num

_STEPS = 4096  # angles in a full turn
_SINES = torch.tensor([sin(2 * pi * step / _STEPS) for step in range(_STEPS)])


def rotation(axis: int, degrees: Num[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotations about axis 0, 1 or 2, by angles that are rounded to 4,096ths of a turn.

    About axis 0 axis 1 turns towards axis 2, about axis 1 axis 2 towards axis 0, and about axis 2
    axis 1 towards axis 0.

    >>> down = rotation(2, torch.tensor(90.0))[:, 1]
    >>> down.round().tolist()
    [1.0, 0.0, 0.0]
    """
    step = (degrees * (_STEPS / 360)).round().long() & (_STEPS - 1)
    sine, cosine = _SINES[step], _SINES[(step + _STEPS // 4) & (_STEPS - 1)]
    matrix = torch.zeros(*degrees.shape, 3, 3)
    source, target = ((1, 2), (2, 0), (1, 0))[axis]
    matrix[..., axis, axis] = 1
    matrix[..., source, source] = matrix[..., target, target] = cosine
    matrix[..., target, source] = sine
    matrix[..., source, target] = -sine
    return matrix


def compose(
    outer: Float[Tensor, "*#batch 3 3"], inner: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """The products of matrices."""
    first, second, third = (outer[..., :, i, None] * inner[..., None, i, :] for i in range(3))
    return first + second + third
