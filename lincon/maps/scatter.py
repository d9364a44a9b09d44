"""Addition at places that may come several times, with the same bits run to run on every device."""

import torch
from torch import Tensor

from lincon.shapes import Float, Int


def add_at(
    out: Float[Tensor, " dof"], index: Int[Tensor, " n"], values: Float[Tensor, " n"]
) -> None:
    """Add ``values`` to ``out[index]``, duplicates in a fixed order.

    >>> out = torch.zeros(3)
    >>> add_at(out, torch.tensor([2, 0, 2]), torch.tensor([1.0, 5.0, 10.0]))
    >>> out
    tensor([ 5.,  0., 11.])
    """
    if out.device.type == "cpu":
        out.index_add_(0, index, values)  # one thread adds in turn
    else:
        add_sorted(out, index, values)  # index_add_ would race on duplicates


def add_sorted(
    out: Float[Tensor, " dof"], index: Int[Tensor, " n"], values: Float[Tensor, " n"]
) -> None:
    """`add_at` without atomics: a stable sort by index, then a sum of each run of equal indices."""
    ordered, order = torch.sort(index, stable=True)
    places, lengths = torch.unique_consecutive(ordered, return_counts=True)
    out[places] += torch.segment_reduce(values[order], "sum", lengths=lengths)
