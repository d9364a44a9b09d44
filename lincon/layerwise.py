"""`materialize="layer"`: weights are generated layer by layer, freed after use, and generated again for the backward.

The free vector is turned into an empty token by an anchor node, and every layer's generation takes the token as its
input. Each layer's backward adds its adjoint into one buffer; the anchor's backward, which autograd runs after all of
them, hands the buffer over as the gradient of the free vector. While the owner's forward runs, a generated weight that
an operation wants to save is replaced by a note of which layer it is.
"""

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from lincon.errors import LinconError

if TYPE_CHECKING:
    from lincon.constraint import Constraint

Key = tuple[int, int]


class Note(NamedTuple):
    """Stands for a saved tensor: a view of the weight of a layer."""

    key: Key
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


class Tape:
    """One forward of a constraint's owner: its free vectors, their tokens and the weights that are alive."""

    def __init__(self, constraint: "Constraint") -> None:
        self.constraint = constraint
        self.free = [constraint._free(group) for group in constraint.groups]
        self.versions = [free._version for free in self.free]
        self.buffers: dict[int, Tensor] = {}
        self.alive: dict[Key, weakref.ref[Tensor]] = {}
        self.places: dict[int, Key] = {}
        pairs = zip(self.free, constraint.groups, strict=True)
        self.tokens = [_Anchor.apply(constraint.scaled(f, g), self, number) for number, (f, g) in enumerate(pairs)]
        self.hooks = saved_tensors_hooks(self._note, self._regenerate)
        self.hooks.__enter__()

    def close(self) -> None:
        """The owner's forward has ended: tensors saved from now on are none of ours."""
        self.hooks.__exit__()
        self.alive.clear()
        self.places.clear()

    def read(self, key: Key) -> Tensor:
        """The weight of a layer: the one that is alive, or made now."""
        known = self.alive.get(key)
        weight = None if known is None else known()
        if weight is None or (torch.is_grad_enabled() and self.free[key[0]].requires_grad and not weight.requires_grad):
            dtype = self.constraint._dtype(self.constraint.groups[key[0]])
            weight = _Layer.apply(self.tokens[key[0]], self, key, dtype)
            self.alive[key] = weakref.ref(weight)
            self.places[weight.untyped_storage().data_ptr()] = key
        return weight

    def make(self, key: Key, dtype: torch.dtype) -> Tensor:
        """Generate a layer's weight, without a graph."""
        with torch.no_grad():
            return self.constraint._generate_one(self.constraint.groups[key[0]], key[1], self.free[key[0]], dtype)

    def add(self, key: Key, grad: Tensor) -> None:
        """Add a layer's adjoint to the buffer of its group."""
        group = self.constraint.groups[key[0]]
        if key[0] not in self.buffers:
            self.buffers[key[0]] = group.map.accumulator(grad.dtype, self.free[key[0]].device)
        entry = group.ledger.entries[key[1]]
        flat = grad.to(self.free[key[0]].device).reshape(-1)
        group.map._accumulate(self.buffers[key[0]], flat, entry.start)

    def _note(self, tensor: Tensor) -> Any:
        key = self.places.get(tensor.untyped_storage().data_ptr()) if tensor.layout == torch.strided else None
        if key is None or (weight := self.alive[key]()) is None or weight.dtype != tensor.dtype:
            return tensor
        if tensor.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr():
            return tensor  # freed, and its place taken by something else
        return Note(key, tensor.size(), tensor.stride(), int(tensor.storage_offset()), tensor.dtype)

    def _regenerate(self, packed: Any) -> Tensor:
        if not isinstance(packed, Note):
            return packed
        if self.free[packed.key[0]]._version != self.versions[packed.key[0]]:
            raise LinconError(
                "The free vector was changed between the forward and the backward, so the weights of the forward "
                "cannot be generated again: run the backward before the optimiser's step."
            )
        return self.make(packed.key, packed.dtype).as_strided(packed.size, packed.stride, packed.offset)


class _Anchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, free: Tensor, tape: Tape, number: int) -> Tensor:
        ctx.tape, ctx.number = tape, number
        return free.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        buffer = ctx.tape.buffers.pop(ctx.number, None)
        free = ctx.tape.free[ctx.number]
        return torch.zeros_like(free) if buffer is None else buffer.to(free.dtype), None, None


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, tape: Tape, key: Key, dtype: torch.dtype) -> Tensor:
        ctx.tape, ctx.key = tape, key
        return tape.make(key, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        ctx.tape.add(ctx.key, grad)
        return ctx.tape.tokens[ctx.key[0]].new_zeros(0), None, None, None
