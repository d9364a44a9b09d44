"""The tape of forwards without gradients, whose weights are used again while nothing has changed.

Ŵ is generated once and stays in memory between such forwards, with a copy of the free vectors. The
next forward that trains lets go of both, and so does `Constraint.release`.

Whether a free vector has changed is told by its values, which are compared with the copy: a write
through `.data` changes no counter. A model with an offset W₀, which would be compared as well and
is as long as Ŵ, generates its weights in every forward.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lincon.attaching.free_vector import FreeVector
from lincon.kernels.memory import array_of
from lincon.step.layout import Layout
from lincon.step.model_tape import ModelTape, is_watched
from lincon.step.tape import version_of
from lincon.step.weight import asks_for_gradient

FEW = 1 << 14
"""Numbers that torch compares by the time NumPy has begun; of more, NumPy compares four at a time."""


class HeldTape(ModelTape):
    """Generates all weights once, for forwards without gradients."""

    def __init__(self, vectors: Sequence[FreeVector], layouts: Sequence[Layout]) -> None:
        with torch.inference_mode(False), torch.no_grad():  # forwards of both kinds use them
            super().__init__(vectors, layouts)
            self.dtypes = [vector.dtype for vector in self.vectors]
            self.asks = [asks_for_gradient(free) for free in self.free]
            self.sources = [_sources(vector) for vector in self.vectors]
            self.copies = [[each.clone() for each in tensors] for tensors in self.sources]

    def close(self) -> None:
        """End a forward: the weights stay."""
        self.kept.weights.clear()

    def is_current(self, vectors: Sequence[FreeVector]) -> bool:
        """Whether the weights are those that would be generated now, and nothing wrote to them."""
        return (
            list(vectors) == self.vectors  # they are equal only if they are the same
            and [vector.dtype for vector in vectors] == self.dtypes
            and [version_of(free) for free in self.free] == self.versions  # `read` asks for it
            and [asks_for_gradient(free) for free in self.free] == self.asks
            and all(map(self._is_same, range(len(vectors))))
            and all(counter._version == writes for counter, writes in self.watched)
        )

    def _is_same(self, number: int) -> bool:
        now = _sources(self.vectors[number])
        found = zip(now, self.sources[number], self.copies[number], strict=True)
        return all(
            tensor is before and _is_equal(tensor.detach(), copy) for tensor, before, copy in found
        )


def may_hold(vectors: Sequence[FreeVector]) -> bool:
    """Whether a forward that begins now may use the weights of one before, or leave its own.

    The free vectors must be the model's own, not substituted ones, with values to compare.
    """
    if is_watched() or any(vector.group.origin is not None for vector in vectors):
        return False
    on_gpu = any(vector.parameter.is_cuda for vector in vectors)
    if on_gpu and torch.cuda.is_current_stream_capturing():
        return False  # a comparison would wait for the device
    return all(
        isinstance(vector.parameter, torch.nn.Parameter) and not vector.parameter.is_inference()
        for vector in vectors
    )


def _sources(vector: FreeVector) -> list[Tensor]:
    """The tensors that the weights are made of."""
    steps = vector.steps
    return [vector.parameter] if steps is None else [vector.parameter, steps]


def _is_equal(tensor: Tensor, copy: Tensor) -> bool:
    if tensor.dtype != copy.dtype or tensor.device != copy.device:
        return False
    if tensor.is_cpu and tensor.dtype in (torch.float32, torch.float64) and len(tensor) > FEW:
        return bool((array_of(tensor) == array_of(copy)).all())
    return torch.equal(tensor, copy)
