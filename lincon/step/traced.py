"""A generated weight within a graph of torch.compile.

If the graph is that of the whole model, all weights are made at its start. If it is that of a block,
it has one operator for each weight, and a tensor tells it which rows of which G these are. To the
compiler both a weight that is there and such a tensor are inputs. So one graph serves all blocks of
equal shapes.
"""

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from lincon.attaching.free_vector import FreeVector
from lincon.generator import Generator
from lincon.maps.operators import check_not_exported, derivative, operator

_live: "WeakValueDictionary[int, Generator]" = WeakValueDictionary()


class Spot:
    """Where a tensor lies in the rows of its group.

    Args:
        vector: the free vector.
        index: the number of the tensor in the ledger.

    Attributes:
        made: the tensor, while a graph runs that has made all of the model's; else None.
    """

    def __init__(self, vector: FreeVector, index: int) -> None:
        self.move(vector, index)

    def move(self, vector: FreeVector, index: int) -> None:
        """Take another place; copies, and slices of a model, have other free vectors."""
        self.made: Tensor | None = None
        entry, linear_map = vector.group.ledger.entries[index], vector.group.map
        number = int(linear_map.handle)
        _live[number] = linear_map
        self.vector, self.shape, self.size = vector, entry.shape, entry.numel
        self.device = vector.group.device(index)
        with torch.inference_mode(False):
            self.where = torch.tensor([number, entry.start], device="cpu")

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has no place until its constraint moves it there."""
        return Spot.__new__, (Spot,)

    def weight(self) -> Tensor:
        """The tensor, differentiable, by operations that a compiler can trace."""
        if self.made is not None:
            return self.made
        check_not_exported()
        vector = self.vector
        free = vector.effective(vector.parameter)
        rows: Tensor = torch.ops.lincon.rows(
            free, vector.origin, self.where, self.size, vector.dtype
        )
        weight = rows.view(self.shape)
        return weight if self.device is None else weight.to(self.device)


def _rows(
    free: Tensor, origin: Tensor | None, where: Tensor, size: int, dtype: torch.dtype
) -> Tensor:
    linear_map, start = _found(where)
    rows = linear_map.unpack_rows(free.to(dtype), start, start + size)
    return rows if origin is None else rows + origin[start : start + size].to(dtype)


def _rows_shape(
    free: Tensor, origin: Tensor | None, where: Tensor, size: int, dtype: torch.dtype
) -> Tensor:
    return free.new_empty(size, dtype=dtype)


def _adjoint(grad: Tensor, where: Tensor, dof: int, dtype: torch.dtype) -> Tensor:
    linear_map, start = _found(where)
    return linear_map.adjoint_of_rows(grad.contiguous(), start).to(dtype)


def _adjoint_shape(grad: Tensor, where: Tensor, dof: int, dtype: torch.dtype) -> Tensor:
    return grad.new_empty(dof, dtype=dtype)


def _found(where: Tensor) -> tuple[Generator, int]:
    number, start = where.tolist()
    return _live[number], start


def _keep_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    free, _, where, *_ = inputs
    ctx.save_for_backward(where)
    ctx.dof, ctx.dtype = len(free), free.dtype


def _rows_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (where,) = ctx.saved_tensors
    return torch.ops.lincon.rows_adjoint(grad, where, ctx.dof, ctx.dtype), None, None, None, None


def _keep_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, where, *_ = inputs
    ctx.save_for_backward(where)
    ctx.size, ctx.dtype = len(grad), grad.dtype


def _adjoint_backward(ctx: Any, total: Tensor) -> tuple[Tensor | None, ...]:
    (where,) = ctx.saved_tensors
    return torch.ops.lincon.rows(total, None, where, ctx.size, ctx.dtype), None, None, None


operator(
    "rows(Tensor free, Tensor? origin, Tensor where, SymInt size, ScalarType dtype) -> Tensor",
    _rows,
    _rows_shape,
)
operator(
    "rows_adjoint(Tensor grad, Tensor where, SymInt dof, ScalarType dtype) -> Tensor",
    _adjoint,
    _adjoint_shape,
)
derivative("rows", _keep_rows, _rows_backward)
derivative("rows_adjoint", _keep_adjoint, _adjoint_backward)
