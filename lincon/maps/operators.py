"""The pair of torch operators that apply G and Gᵀ. Each is the derivative of the other.

Gradients of any order, forward mode, `torch.func` and `torch.compile(fullgraph=True)` see a linear
map and never trace into it. A generator is known to the operators by its handle, a string that
compilers treat as a constant.
"""

import itertools
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lincon.errors import LinconError
from lincon.shapes import Float


class LinearMap(Protocol):
    """What the operators need from a generator."""

    @property
    def dof(self) -> int:
        """The width of G."""

    def unpack_rows(self, free: Tensor, start: int, stop: int) -> Tensor:
        """G[start:stop] @ free, without autograd."""

    def adjoint_of_rows(self, grad: Tensor, start: int) -> Tensor:
        """G[start : start + len(grad)].T @ grad, without autograd."""


_PLAIN = Tensor, torch.nn.Parameter
_numbers = itertools.count()
_live: WeakValueDictionary[str, LinearMap] = WeakValueDictionary()


def handle_of(linear_map: LinearMap) -> str:
    """A new handle, which is valid as long as the map lives."""
    handle = str(next(_numbers))
    _live[handle] = linear_map
    return handle


def unpack(
    vector: Float[Tensor, " dof"], handle: str, rows: tuple[int, int], dtype: torch.dtype
) -> Float[Tensor, " n"]:
    """G[start:stop] @ vector in ``dtype``, differentiable, where ``rows`` is (start, stop)."""
    if _is_plain(vector):
        same = vector if vector.dtype == dtype else vector.to(dtype)
        return _live[handle].unpack_rows(same, *rows)
    return _apply(vector, False, handle, *rows, dtype)


def adjoint(
    vector: Float[Tensor, " n"], handle: str, rows: tuple[int, int], dtype: torch.dtype
) -> Float[Tensor, " dof"]:
    """G[start:stop].T @ vector in ``dtype``, differentiable, where ``rows`` is (start, stop)."""
    if _is_plain(vector):
        result = _live[handle].adjoint_of_rows(vector.contiguous(), rows[0])
        return result if result.dtype == dtype else result.to(dtype)
    return _apply(vector, True, handle, *rows, dtype)


def _is_plain(vector: Tensor) -> bool:
    """Whether nothing watches: no derivative, transform, compiler or mode, and no tensor of its own.

    The operators cost some 50 microseconds, which is more than a small map takes.
    """
    return (
        not torch.compiler.is_compiling()  # first: compilers know nothing of some that follow
        and type(vector) in _PLAIN
        and not (vector.requires_grad and torch.is_grad_enabled())
        and not vector.is_meta
        and not torch._C._functorch.is_legacy_batchedtensor(vector)  # is_grads_batched=True
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


_library = torch.library.Library("lincon", "FRAGMENT")


def operator(schema: str, compute: Callable[..., Tensor], empty: Callable[..., Tensor]) -> None:
    """Register an operator of torch, which compilers call and never trace into.

    `torch.library.custom_op` would do the same, at 4 ms of every import for each operator.

    Args:
        schema: its name and signature, as `torch.library.define` takes them.
        compute: what it does, on every device.
        empty: a tensor of the same shape and dtype, on the meta device.
    """
    name = schema.partition("(")[0]
    _library.define(schema, tags=torch.Tag.pt2_compliant_tag)
    _library.impl(name, compute, "CompositeExplicitAutograd")
    _library.impl(name, empty, "Meta")


def derivative(name: str, keep: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Give an operator a derivative, as `torch.library.register_autograd` takes it."""
    torch.library.register_autograd(f"lincon::{name}", backward, setup_context=keep, lib=_library)


def _unpack(free: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    return _live[generator].unpack_rows(free.to(dtype), start, stop)


def _unpack_shape(
    free: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype
) -> Tensor:
    return free.new_empty(stop - start, dtype=dtype)


def _adjoint(grad: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    return _live[generator].adjoint_of_rows(grad.contiguous(), start).to(dtype)


def _adjoint_shape(
    grad: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype
) -> Tensor:
    return grad.new_empty(_live[generator].dof, dtype=dtype)


_WHERE = "str generator, SymInt start, SymInt stop, ScalarType dtype"
operator(f"unpack(Tensor free, {_WHERE}) -> Tensor", _unpack, _unpack_shape)
operator(f"adjoint(Tensor grad, {_WHERE}) -> Tensor", _adjoint, _adjoint_shape)


def check_not_exported() -> None:
    """Raise LinconError inside of `torch.export`."""
    if torch.compiler.is_exporting():
        raise LinconError(
            "A constrained model cannot be exported, because its G lives in this process: "
            "lincon.merge it first."
        )


def _apply(vector: Tensor, transposed: bool, *where: Any) -> Tensor:
    check_not_exported()
    # Compilers refuse to trace a function that has a forward-mode derivative.
    function = _apply_plainly if torch.compiler.is_compiling() else _apply_with_forward_mode
    return function(vector, transposed, *where)


class _Linear(torch.autograd.Function):
    """Applies G, or Gᵀ if ``transposed``, to a vector.

    The further arguments are handle, start, stop, and the dtype of the result.
    """

    @staticmethod
    def forward(
        vector: Tensor, transposed: bool, handle: str, start: int, stop: int, dtype: torch.dtype
    ) -> Tensor:
        operator = torch.ops.lincon.adjoint if transposed else torch.ops.lincon.unpack
        result: Tensor = operator(vector, handle, start, stop, dtype)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        vector, ctx.transposed, *ctx.where, ctx.dtype_out = inputs
        ctx.dtype_in = vector.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient = _apply(grad, not ctx.transposed, *ctx.where, ctx.dtype_in)
        return gradient, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], batch: Tensor, *args: Any) -> tuple[Tensor, int]:
        vectors = batch.movedim(in_dims[0], 0)
        if not len(vectors):
            transposed, handle, start, stop, dtype = args
            size = _live[handle].dof if transposed else stop - start
            return batch.new_empty((0, size), dtype=dtype), 0
        return torch.stack([_apply(vector, *args) for vector in vectors]), 0


class _LinearForwardMode(_Linear):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _apply(tangent, ctx.transposed, *ctx.where, ctx.dtype_out)


_apply_plainly: Callable[..., Tensor] = _Linear.apply
_apply_with_forward_mode: Callable[..., Tensor] = _LinearForwardMode.apply
