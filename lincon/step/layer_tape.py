"""The tape of ``materialize="layer"``: it generates a weight for each use in forward and backward.

While the owner's forward runs, torch's hooks for saved tensors replace each weight that an
operation saves by a `SavedWeight`, which names the entry. So no weight outlives its use.
"""

import sys
import weakref
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lincon.attaching.free_vector import FreeVector
from lincon.errors import LinconError
from lincon.generator import Generator, wide_enough
from lincon.maps.piece import Piece
from lincon.step.gradient_queue import GradientQueue, SavedBytes
from lincon.step.layout import Key, Layout
from lincon.step.tape import Tape, make_token, version_of


class SavedWeight(NamedTuple):
    """Describes a view of a generated weight that an operation has saved."""

    key: Key
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


class SavedByOthers(NamedTuple):
    """What hooks beneath have made of a tensor, and how they make a tensor of that again."""

    packed: Any
    unpack: Callable[[Any], Tensor]


Hooks = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]


class LayerTape(Tape):
    """Generates one weight at a time."""

    def __init__(self, vectors: Sequence[FreeVector], layouts: Sequence[Layout]) -> None:
        super().__init__(vectors, layouts)
        self.alive: dict[Key, weakref.ref[Tensor]] = {}
        self.places: dict[int, Key] = {}
        """The weight at each address."""
        self.activations = SavedBytes()
        self.queue = GradientQueue(self.activations)
        self.prepared: dict[tuple[int, torch.dtype], Tensor] = {}
        # torch calls the hooks that were put on last alone; these hand on to those beneath.
        self.beneath: Hooks | None = torch._C._autograd._top_saved_tensors_default_hooks(False)
        pack = partial(_uncompiled(LayerTape._pack), self)
        self.hooks = saved_tensors_hooks(pack, self._unpack)
        self.hooks.__enter__()

    def close(self) -> None:
        """Stop replacing saved tensors: later ones do not belong to this forward."""
        super().close()
        self.hooks.__exit__()
        del self.hooks  # they hold this tape
        self.alive.clear()
        self.places.clear()

    def weight(self, key: Key) -> Tensor:
        """The living weight of an entry, or a new one."""
        number, index = key
        reference = self.alive.get(key)
        weight = None if reference is None else reference()
        wants_gradient = torch.is_grad_enabled() and self.free[number].requires_grad
        if weight is None or (wants_gradient and weight.grad_fn is None):
            generated = self.generate(key, self.vectors[number].dtype)
            (weight,) = self.track([generated], number, range(index, index + 1))
            self.alive[key] = weakref.ref(weight)
            self.places[weight.untyped_storage().data_ptr()] = key
        return weight

    def generate(self, key: Key, dtype: torch.dtype) -> Tensor:
        """The weight of an entry, without autograd. It is no view."""
        number, index = key
        vector, layout = self.vectors[number], self.layouts[number]
        linear_map, start = vector.group.map, layout.starts[index]
        with torch.inference_mode(False), torch.no_grad():
            prepared = self.prepared.get((number, dtype))
            if prepared is None:
                free = vector.effective(self.free[number])
                prepared = self.prepared[number, dtype] = linear_map.prepare(free.to(dtype))
            stop = start + layout.sizes[index]
            rows = linear_map.prepared_rows(prepared, start, stop, vector.origin)
            rows.resize_(layout.shapes[index])
            device = vector.group.device(index)
            return rows if device is None else rows.to(device)

    def token(self, number: int) -> Tensor:
        """The token of a group: each weight is a run of its own."""
        return make_token(self.effective[number], self, number)

    def counter(self, weight: Tensor) -> Tensor:
        """A tensor without memory: the weight itself would stay alive."""
        counter = weight.detach()
        counter.data = counter.new_empty(0)  # it keeps its counter of writes
        return counter

    def buffer(self, generator: Generator, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros that are freed with the gradient; recycled storage would outlive the backward."""
        return torch.zeros(generator.prepared_dof, dtype=wide_enough(dtype), device=device)

    def add(self, number: int, pieces: list[Piece]) -> None:
        for piece in pieces:
            self.queue.put(number, piece)
        del piece, pieces[:]  # so that each gradient is freed once it is added
        if number in self.buffers or not self._should_wait(number):
            self._add_waiting()

    def gradient(self, number: int) -> Tensor | None:
        self._add_waiting()
        for group, dtype in list(self.prepared):
            if group == number:  # the loss may live long; a second backward prepares again
                del self.prepared[group, dtype]
        return super().gradient(number)

    def suspend(self) -> tuple[Any, ...]:
        gradients, self.queue.gradients = self.queue.gradients, []
        return (*super().suspend(), gradients)

    def resume(self, sums: tuple[Any, ...]) -> None:
        *rest, self.queue.gradients = sums
        super().resume(tuple(rest))

    def _should_wait(self, number: int) -> bool:
        linear_map = self.map(number)
        itemsize = wide_enough(self.free[number].dtype).itemsize
        return self.queue.should_wait(
            itemsize * linear_map.prepared_dof, itemsize * linear_map.rows
        )

    def _add_waiting(self) -> None:
        while self.queue.gradients:
            number, piece = self.queue.take()
            self.accumulate(number, [piece])
            del piece

    def _pack(self, tensor: Tensor) -> Tensor | SavedWeight | SavedByOthers:
        """What is saved in the place of a tensor."""
        key = self._key_of(tensor)
        if key is None:
            return self._pack_beneath(tensor)
        offset = int(tensor.storage_offset())
        return SavedWeight(key, tensor.size(), tensor.stride(), offset, tensor.dtype)

    def _pack_beneath(self, tensor: Tensor) -> Tensor | SavedByOthers:
        if self.beneath is None:
            return self.activations.save(tensor)
        pack, unpack = self.beneath
        return SavedByOthers(pack(tensor), unpack)

    def _key_of(self, tensor: Tensor) -> Key | None:
        """The entry whose weight this is a view of, or None."""
        if tensor.layout != torch.strided:
            return None
        address = tensor.untyped_storage().data_ptr()
        key = self.places.get(address)
        weight = None if key is None else self.alive[key]()
        if weight is None or weight.dtype != tensor.dtype:
            return None
        # The weight may have been freed, and another tensor may have taken its address.
        return key if weight.untyped_storage().data_ptr() == address else None

    def _unpack(self, saved: Tensor | SavedWeight | SavedByOthers) -> Tensor:
        """The tensor that was saved, or the weight generated again."""
        if isinstance(saved, Tensor):
            return self.activations.use(saved)
        if isinstance(saved, SavedByOthers):
            return saved.unpack(saved.packed)
        if torch.is_grad_enabled():
            raise LinconError(
                'materialize="layer" has no second derivatives; for create_graph=True set '
                'constraint.materialize = "model".'
            )
        number, _ = saved.key
        if version_of(self.free[number]) != self.versions[number]:
            raise LinconError(
                "The free vector was changed between the forward and the backward, so the weights "
                "of the forward cannot be generated again: "
                "run the backward before the optimiser's step."
            )
        weight = self.generate(saved.key, saved.dtype)
        return weight.as_strided(saved.size, saved.stride, saved.offset)


def _uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, of which torch.compile makes no graphs.

    A block that is compiled runs the hooks, and each step would compile them anew.
    """
    is_loaded = "torch._dynamo" in sys.modules  # nothing compiles without it, and it loads long
    return _disabled(function) if is_loaded else function


_disabled = cache(torch.compiler.disable)
