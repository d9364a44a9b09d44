"""A tape: one forward of a constraint's owner, and the way its gradients come back.

The free vector is turned into an empty token by an anchor node, and every generated weight takes the token as an input.
As soon as a weight's gradient is there, its adjoint is added into one buffer and the gradient is let go; the anchor's
backward, which autograd runs after all of them, hands the buffer over as the gradient of the free vector. So neither a
concatenation of all gradients nor a dof-sized one a layer ever exists. (With ``create_graph=True`` every weight gives
its own differentiable gradient instead.)

A `WholeTape` generates all weights at once; if a generator cannot do a tensor's part of the adjoint for a part of the
cost (its `grain`), gradients of small tensors are laid side by side and have their adjoint together. A `LayerTape`
generates each weight when it is read, lets it go after use, and generates it again for the backward: while the owner's
forward runs, a weight that an operation wants to save is replaced by a note of which layer it is. (A convolution's
backward gets it `Later`.) Where activations are most of the memory, its gradients wait at first, and the buffer is
there only when the backward has let go of enough to make room.
"""

import weakref
from abc import ABC, abstractmethod
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lincon.errors import LinconError
from lincon.generator import Generator, wide_enough
from lincon.step.later import Later, asked_by_convolution

if TYPE_CHECKING:
    from lincon.attaching.constraint import Constraint

Key = tuple[int, int]


class Tape(ABC):
    """The free vectors of one forward, their tokens and the buffers of their gradients."""

    def __init__(self, constraint: "Constraint") -> None:
        self.constraint = constraint
        self.groups = list(constraint.groups)  # those of this forward: pruning puts others there
        self.free = [constraint._free(group) for group in self.groups]
        self.versions = [_version(free) for free in self.free]
        self.buffers: dict[int, Tensor] = {}
        self.backward = -1
        self.adding = Lock()  # autograd has a thread for each device
        pairs = zip(self.free, self.groups, strict=True)
        self.seen = [constraint.scaled(free, group) for free, group in pairs]
        self.tokens = [_Anchor.apply(seen, self, number) for number, seen in enumerate(self.seen)]

    @abstractmethod
    def weight(self, key: Key) -> Tensor:
        """The weight of entry ``key`` = (group, index)."""

    def close(self) -> None:
        """The owner's forward has ended: let go of what would keep its graph, and so itself, alive."""
        self.seen.clear()
        self.tokens.clear()

    def read(self, key: Key) -> Tensor | None:
        """The weight, unless the free vector is not the one of this forward any more, or gradients are wanted anew."""
        free = self.constraint._free(self.groups[key[0]])
        if self.free[key[0]] is not free or self.versions[key[0]] != _version(free):
            return None
        weight = self.weight(key)
        return (
            weight
            if weight.requires_grad or not (torch.is_grad_enabled() and free.requires_grad)
            else None
        )

    def track(self, weight: Tensor, key: Key) -> Tensor:
        """Connect a generated weight to its free vector."""
        return _Weight.apply(self.seen[key[0]], self.tokens[key[0]], weight, self, key)

    def enter(self) -> None:
        """A gradient comes. What an earlier backward left, that ended in an error, is none of this one."""
        if self.backward != (now := torch._C._current_graph_task_id()):
            self.backward = now
            self.forget()

    def forget(self) -> None:
        """Let go of all gradients that were added."""
        self.buffers.clear()

    def buffer(self, generator: Generator, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros (prepared_dof,), of recycled storage where it is large: what the adjoints are added into."""
        return generator.accumulator(dtype, device)

    def gradient(self, number: int) -> Tensor | None:
        """(dof,), of all that was added to the buffer of a group, which the tape lets go of; None if nothing was."""
        buffer = self.buffers.pop(number, None)
        return None if buffer is None else self.groups[number].map.prepare_adjoint(buffer)

    @abstractmethod
    def add(self, key: Key, grad: Tensor) -> None:
        """Add a weight's adjoint to the buffer of its group, now or before the gradient is asked for."""

    def accumulate(self, number: int, start: int, grad: Tensor) -> None:
        """Add the adjoint of rows of a group to its buffer."""
        map_, device = self.groups[number].map, self.free[number].device
        if number not in self.buffers:
            self.buffers[number] = self.buffer(map_, grad.dtype, device)
        map_.accumulate(self.buffers[number], grad.to(device).reshape(-1), start)

    def start(self, key: Key) -> int:
        """The first row of an entry."""
        return self.groups[key[0]].ledger.entries[key[1]].start


class WholeTape(Tape):
    """All weights, generated in one operation a group."""

    def __init__(self, constraint: "Constraint") -> None:
        super().__init__(constraint)
        with torch.no_grad():
            made = [constraint._generate(group) for group in self.groups]
        self.waiting: dict[int, Tensor] = {}
        self.ranges: dict[int, list[tuple[int, int]]] = {}
        self.weights = [
            [self.track(w, (n, i)) for i, w in enumerate(group)] for n, group in enumerate(made)
        ]

    def weight(self, key: Key) -> Tensor:
        return self.weights[key[0]][key[1]]

    def close(self) -> None:
        super().close()
        self.weights.clear()

    def add(self, key: Key, grad: Tensor) -> None:
        """At once if the tensor has the rows of a grain, else together with its neighbours in the end."""
        number, start, map_ = key[0], self.start(key), self.groups[key[0]].map
        if grad.numel() >= map_.grain:
            self.accumulate(number, start, grad)
            return
        if number not in self.waiting:
            self.waiting[number] = torch.empty(
                map_.rows, dtype=grad.dtype, device=self.free[number].device
            )
        self.waiting[number][start : start + grad.numel()] = grad.reshape(-1)
        self.ranges.setdefault(number, []).append((start, start + grad.numel()))

    def gradient(self, number: int) -> Tensor | None:
        flat = self.waiting.pop(number, None)
        for start, stop in _joined(self.ranges.pop(number, [])):
            assert flat is not None
            self.accumulate(number, start, flat[start:stop])
        return super().gradient(number)

    def forget(self) -> None:
        super().forget()
        self.waiting.clear()
        self.ranges.clear()


class Note(NamedTuple):
    """Stands for a saved tensor: a view of the weight of a layer."""

    key: Key
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    plain: bool
    """Whether it is contiguous, and on the device of the free vector."""


class Saved:
    """Counts what autograd saves for the backward, and what of it the backward has asked for and will let go of."""

    def __init__(self) -> None:
        self.bytes = self.freed = 0
        self.uses: dict[int, int] = {}

    def take(self, tensor: Tensor) -> Tensor:
        """Count a tensor that is saved, its storage once."""
        if tensor.layout == torch.strided and not isinstance(tensor, torch.nn.Parameter):
            place = tensor.untyped_storage().data_ptr()
            self.bytes += 0 if self.uses.get(place) else tensor.untyped_storage().nbytes()
            self.uses[place] = self.uses.get(place, 0) + 1
        return tensor

    def give(self, tensor: Tensor) -> Tensor:
        """Count a tensor that is used, its storage as freed after the last use."""
        if (
            tensor.layout == torch.strided
            and (place := tensor.untyped_storage().data_ptr()) in self.uses
        ):
            self.uses[place] -= 1
            self.freed += 0 if self.uses[place] else tensor.untyped_storage().nbytes()
        return tensor


class LayerTape(Tape):
    """One weight at a time."""

    def __init__(self, constraint: "Constraint") -> None:
        super().__init__(constraint)
        self.alive: dict[Key, weakref.ref[Tensor]] = {}
        self.places: dict[int, Key] = {}
        self.saved = Saved()
        self.waiting: list[tuple[Key, Tensor]] = []
        self.spread: dict[tuple[int, torch.dtype], Tensor] = {}
        self.hooks = saved_tensors_hooks(self._note, self._regenerate)
        self.hooks.__enter__()

    def close(self) -> None:
        """Tensors saved from now on are none of ours."""
        super().close()
        self.hooks.__exit__()
        del self.hooks  # they hold this tape
        self.alive.clear()
        self.places.clear()

    def weight(self, key: Key) -> Tensor:
        """The one that is alive, or made now."""
        known = self.alive.get(key)
        weight = None if known is None else known()
        if weight is None or (
            torch.is_grad_enabled() and self.free[key[0]].requires_grad and not weight.requires_grad
        ):
            weight = self.track(self._make(key, self.constraint._dtype(self.groups[key[0]])), key)
            self.alive[key] = weakref.ref(weight)
            self.places[weight.untyped_storage().data_ptr()] = key
        return weight

    def buffer(self, generator: Generator, dtype: torch.dtype, device: torch.device) -> Tensor:
        """One that is freed with the gradient: a recycled one would be there in every forward too."""
        return torch.zeros(generator.prepared_dof, dtype=wide_enough(dtype), device=device)

    def gradient(self, number: int) -> Tensor | None:
        self._add_waiting()
        for known in [known for known in self.spread if known[0] == number]:
            del self.spread[known]  # made again if the graph is kept; a loss may be kept for long
        return super().gradient(number)

    def forget(self) -> None:
        super().forget()
        self.waiting.clear()

    def add(self, key: Key, grad: Tensor) -> None:
        """Add a weight's adjoint to the buffer of its group, or let the gradient wait."""
        self.waiting.append((key, grad))
        if key[0] in self.buffers or not self._worth_waiting(key[0]):
            del grad  # so that each is let go of as soon as it is added
            self._add_waiting()

    def _add_waiting(self) -> None:
        """In the order in which they came: the sums are the same bits as without waiting."""
        while self.waiting:
            key, grad = self.waiting.pop(0)
            self.accumulate(key[0], self.start(key), grad)

    def _worth_waiting(self, number: int) -> bool:
        """Whether less memory is in use without the buffer of the group.

        So it is where the forward has saved more than buffer and gradients will ever take, until the backward has let
        go of enough to make room for both; but gradients that are a buffer ahead of what it lets go of wait no more.
        """
        generator, free = self.groups[number].map, self.free[number]
        size = wide_enough(free.dtype).itemsize
        buffer, waiting = (
            size * generator.prepared_dof,
            sum(grad.nbytes for _, grad in self.waiting),
        )
        if self.saved.bytes < buffer + size * generator.rows:
            return False
        return self.saved.freed < buffer + waiting <= self.saved.freed + 2 * buffer

    def _make(self, key: Key, dtype: torch.dtype) -> Tensor:
        number, index = key
        group = self.groups[number]
        entry = group.ledger.entries[index]
        with torch.no_grad():
            if (number, dtype) not in self.spread:
                free = self.constraint.scaled(self.free[number], group)
                self.spread[number, dtype] = group.map.prepare(free.to(dtype))
            flat = group.map.prepared_rows(self.spread[number, dtype], entry.start, entry.stop)
            return self.constraint._shaped(group, index, flat)

    def _note(self, tensor: Tensor) -> Any:
        key = (
            self.places.get(tensor.untyped_storage().data_ptr())
            if tensor.layout == torch.strided
            else None
        )
        if key is None or (weight := self.alive[key]()) is None or weight.dtype != tensor.dtype:
            return self.saved.take(tensor)
        if tensor.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr():
            return self.saved.take(tensor)  # freed, and its place taken by something else
        plain = tensor.is_contiguous() and tensor.device == self.free[key[0]].device
        return Note(
            key, tensor.size(), tensor.stride(), int(tensor.storage_offset()), tensor.dtype, plain
        )

    def _regenerate(self, packed: Any) -> Tensor:
        if not isinstance(packed, Note):
            return self.saved.give(packed)
        if torch.is_grad_enabled():
            raise LinconError(
                'materialize="layer" has no second derivatives; for create_graph=True set '
                'constraint.materialize = "model".'
            )
        if _version(self.free[packed.key[0]]) != self.versions[packed.key[0]]:
            raise LinconError(
                "The free vector was changed between the forward and the backward, so the weights of the forward "
                "cannot be generated again: run the backward before the optimiser's step."
            )

        def make() -> Tensor:
            return self._make(packed.key, packed.dtype).as_strided(
                packed.size, packed.stride, packed.offset
            )

        if packed.plain and asked_by_convolution():
            return Later(packed.size, packed.dtype, make, self.free[packed.key[0]])
        return make()


class _Anchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, free: Tensor, tape: Tape, number: int) -> Tensor:
        ctx.tape, ctx.number, ctx.dtype = tape, number, free.dtype
        return free.new_empty(0)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        with ctx.tape.adding:
            ctx.tape.enter()
            buffer = ctx.tape.gradient(ctx.number)
        return None if buffer is None else buffer.to(ctx.dtype), None, None


class _Weight(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, free: Tensor, token: Tensor, weight: Tensor, tape: Tape, key: Key
    ) -> Tensor:
        ctx.tape, ctx.key, ctx.dtype, ctx.device = tape, key, free.dtype, free.device
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        group = ctx.tape.groups[ctx.key[0]]
        if torch.is_grad_enabled():
            entry = group.ledger.entries[ctx.key[1]]
            flat = grad.to(ctx.device).reshape(-1)
            return (
                group.map.adjoint(flat, entry.start, entry.stop).to(ctx.dtype),
                None,
                None,
                None,
                None,
            )
        with ctx.tape.adding:
            ctx.tape.enter()
            ctx.tape.add(ctx.key, grad)
        return None, grad.new_zeros(0, dtype=ctx.dtype, device=ctx.device), None, None, None


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of rows (start, stop), in order, those that follow on one another as one."""
    runs: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if runs and runs[-1][1] == start:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return runs


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
