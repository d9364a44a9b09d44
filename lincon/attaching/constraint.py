"""The constraint: a ledger, its generators and free vectors, bound to the module that owns them.

Only the owner registers each free vector, as one Parameter. A forward pre-hook of the owner
generates all weights in one operation a group, and a forward hook drops them. A weight that is read
at any other time is generated on its own.
"""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from threading import get_ident
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lincon import kernels
from lincon.attaching.free_vector import FreeVector
from lincon.attaching.group import Group
from lincon.attaching.ledger import Ledger
from lincon.attaching.parts import freeze, running_module, warn_of_part, watch
from lincon.attaching.state import State, holders, prefixes
from lincon.errors import LinconWarning, TargetError
from lincon.maps.kept import kept_bytes
from lincon.maps.per_device import forget
from lincon.step.held_tape import HeldTape, may_hold
from lincon.step.layer_tape import LayerTape
from lincon.step.layout import Layout
from lincon.step.model_tape import ModelTape
from lincon.step.refusals import check_untraced, is_recording_operators
from lincon.step.tape import Tape
from lincon.step.weight import outside_forward


class Constraint:
    """Ŵ = G W (+ W₀) on some tensors of ``owner``. `lincon.constrain` and `lincon.load` make it.

    Attributes:
        owner: the module that was constrained; its parameters hold the free vectors.
        state: the free vectors, and how a state_dict holds them.
        materialize: "model" generates all weights once a forward, in one operation a group. "layer"
            generates each weight when it is used, frees it, and generates it again for the
            backward, so that Ŵ never exists as a whole.
        copied_from: an identifier that deep copies share.
        trainable: names of the owner's parameters that were trainable when it was constrained.
    """

    def __init__(self, owner: nn.Module, groups: list[Group], materialize: str = "model") -> None:
        self.owner = owner
        self.state = State(owner, groups)
        self.materialize = materialize
        self.copied_from = uuid4().hex
        self.trainable = frozenset(n for n, p in owner.named_parameters() if p.requires_grad)
        self.layouts = [Layout.of(group) for group in groups]
        self._held: HeldTape | None = None
        self._opened: dict[int, Tape | list[list[Tensor]]] = {}
        """What each thread's forward reads: threads do not share weights."""
        self._has_filled = False
        self._parts: WeakKeyDictionary[nn.Module, None] = WeakKeyDictionary()
        self._opener: dict[int, int] = {}
        self._warned_of_part = False
        watch(self)

    @property
    def vectors(self) -> list[FreeVector]:
        """The free vectors, one for each group."""
        return self.state.vectors

    @property
    def residual(self) -> float | None:
        """Relative residual ‖G W - target‖ / ‖target‖ of the last projection, or None."""
        return self.state.residual

    @property
    def groups(self) -> list[Group]:
        """Generator, ledger and names of each free vector."""
        return [vector.group for vector in self.vectors]

    @property
    def dof(self) -> int:
        """Degrees of freedom: the total length of the free vectors."""
        return sum(group.generator.dof for group in self.groups)

    @property
    def rows(self) -> int:
        """The number of generated weights; tied ones count once."""
        return sum(group.generator.rows for group in self.groups)

    @property
    def ledger(self) -> Ledger:
        """All tensors, group after group. Rows count within the generator of each group."""
        return Ledger(tuple(entry for group in self.groups for entry in group.ledger))

    @property
    def free(self) -> dict[str, Tensor]:
        """The free vectors by name, each (dof,), as the owner holds them now."""
        return {vector.group.free: vector.parameter for vector in self.vectors}

    def replace_group(self, number: int, group: Group, free: nn.Parameter) -> None:
        """Replace group ``number`` and its free vector."""
        vectors = list(self.vectors)  # a new list: copies share the old one
        vectors[number] = FreeVector(self.owner, group)
        layouts = list(self.layouts)
        layouts[number] = Layout.of(group)
        self.layouts = layouts
        self.state.put(vectors)
        self.owner._parameters[group.free] = free

    def narrow_group(self, number: int, group: Group, columns: Tensor) -> Tensor:
        """Replace group ``number`` by one that keeps only the free numbers in ``columns``.

        ``columns`` is a mask (dof,). Returns the old free vector.
        """
        old = self.vectors[number].parameter
        with torch.inference_mode(False):
            rest = old.detach()[columns.to(old.device)].clone()
            self.replace_group(number, group, nn.Parameter(rest, old.requires_grad))
        return old

    def weights(self) -> dict[str, Tensor]:
        """All generated tensors by first name, differentiable, from one operation a group."""
        return self.state.weights()

    def project(self, weights: Mapping[str, Tensor]) -> float:
        """Fit the free vectors to given weights by least squares, in place.

        Args:
            weights: a tensor for every entry of the ledger, such as a dense `state_dict`.

        Returns:
            The relative residual ‖Ŵ - target‖ / ‖target‖ over all tensors, also kept as `residual`.

        Raises:
            TargetError: a tensor is missing, has another shape or holds NaN or infinity, or a free
                vector is quantised or sharded. The free vectors are then unchanged.

        >>> import lincon
        >>> model = nn.Linear(3, 2, bias=False)
        >>> constraint = lincon.constrain(model, "ring", dof=6)  # a bijection reaches all targets
        >>> constraint.project({"weight": torch.ones(2, 3)}) < 1e-6
        True
        """
        self.state.check_exact()
        fitted, self.state.residual = self.state.fit(weights)
        with torch.no_grad():
            for vector, free in zip(self.vectors, fitted, strict=True):
                vector.parameter.copy_(free)
        return self.state.residual

    def __repr__(self) -> str:
        names = ", ".join(repr(group.generator) for group in self.groups[:3])
        more = f", ... {len(self.groups)} in all" if len(self.groups) > 3 else ""
        size = f"{len(self.ledger)} tensors, {self.dof} dof -> {self.rows} rows"
        return f"Constraint({size}: {names}{more})"

    # Reading.

    def read(self, key: tuple[int, int]) -> Tensor:
        """The tensor of entry ``key`` = (group, index), from the running forward or on demand."""
        number, index = key
        opened = self._opened.get(get_ident())
        if isinstance(opened, list):
            return opened[number][index]
        if opened is not None:
            weight = opened.read(key)
            if weight is not None:
                return weight
        check_untraced()
        weight = self.vectors[number].weight(index)
        if _traced():
            return weight
        self._look_at_part()
        return outside_forward(weight)

    def freeze(self, part: nn.Module, requires_grad: bool) -> None:
        """Freeze the free vectors that a part of the owner has for itself, or let them train again.

        Raises:
            TargetError: the part shares a free vector that trains, and cannot be frozen alone.
        """
        if self.owner not in part.modules():  # else they are among its parameters
            freeze(self, part, requires_grad)

    def _look_at_part(self) -> None:
        """A weight is generated on demand: if a part of the owner runs, have it open a tape too.

        A module that is no part of the owner is warned of, once.
        """
        part = running_module()
        if part is None or part in self._parts:
            return
        is_own = any(part is module for module in self.owner.modules())
        if not is_own and not self._trains():
            return  # it is looked at when it trains
        self._parts[part] = None
        if any(module is self.owner for module in part.modules()):
            return
        if is_own and self._reads_all(part):
            part.register_forward_pre_hook(self._open_part)
            part.register_forward_hook(self._close_part, always_call=True)
        elif not is_own and not self._warned_of_part:
            self._warned_of_part = True
            warn_of_part(self, part)

    def _trains(self) -> bool:
        if not torch.is_grad_enabled():
            return False
        return any(vector.parameter.requires_grad for vector in self.vectors)

    def _reads_all(self, part: nn.Module) -> bool:
        """Whether a part of the owner has all the weights that are generated."""
        names = [name for name, module in self.owner.named_modules() if module is part]
        prefixes = tuple(f"{name}." for name in names)
        return all(entry.name.startswith(prefixes) for entry in self.ledger)

    def hooks(self) -> tuple[Callable[..., None], ...]:
        """The owner's forward pre-hook and hook, load_state_dict's pre-hook, state_dict's hook."""
        return self._open, self._close, self.state.load, self.state.save

    def _open(self, module: nn.Module, args: Any) -> None:
        """Before the owner's forward: generate all weights, or start to do so layer by layer."""
        check_untraced()
        # There are only shapes; or the forward itself fetches the values, as offloading does.
        is_empty = any(vector.parameter.is_meta for vector in self.vectors)
        if torch.compiler.is_dynamo_compiling():
            if self.materialize == "model" and not is_empty:
                self._fill_spots()
            return
        if self._has_filled:  # by a graph that failed
            self._empty_spots()
        left = self._opened.pop(get_ident(), None)  # by a forward that failed in its hooks
        if isinstance(left, Tape):
            left.close()
        if is_empty:
            return
        if not _traced():
            self._opened[get_ident()] = self._tape()
        elif self.materialize == "model":
            self._opened[get_ident()] = [vector.weights() for vector in self.vectors]

    def _fill_spots(self) -> None:
        """Make all weights in the graph of the owner's forward."""
        self._has_filled = True
        for vector, spots in zip(self.vectors, self.state.spots, strict=True):
            for weight, spot in zip(vector.weights(), spots, strict=True):
                spot.made = weight

    def _empty_spots(self) -> None:
        self._has_filled = False
        for spots in self.state.spots:
            for spot in spots:
                spot.made = None

    def _tape(self) -> Tape:
        """The tape of a forward that begins now."""
        vectors, held = self.vectors, self._held
        if self.materialize == "layer" or self._trains():
            self._held = None
            tape = LayerTape if self.materialize == "layer" else ModelTape
            return tape(vectors, self.layouts)
        if not may_hold(vectors):
            return ModelTape(vectors, self.layouts)
        if held is not None and held.is_current(vectors):
            return held
        self._held = HeldTape(vectors, self.layouts)
        return self._held

    def release(self) -> None:
        """Let go of all that is kept to be fast, `kept_bytes`. It is made again where it is needed.

        That is, on the one hand, the weights that forwards without gradients use again. Such a
        forward (under `torch.no_grad`, in inference mode, or of frozen free vectors) leaves Ŵ in
        memory for the next one, with a copy of the free vectors; with ``materialize="layer"`` or an
        offset it leaves nothing. The next forward that trains lets go of them too.

        On the other hand there are tables of the maps, the divisors of gradients, and buffers of
        32 MiB and more that a step leaves for the next one, of which `model.eval()` lets go as
        well; and on a GPU what `lincon.kernels.release` lets go of, for all models.

        >>> import lincon
        >>> model = nn.Sequential(nn.Linear(8, 4))
        >>> constraint = lincon.constrain(model, "ring", dof=16)
        >>> with torch.no_grad():
        ...     output = model(torch.ones(1, 8))
        >>> constraint.release()
        >>> constraint.kept_bytes
        0
        """
        self._held = None
        kernels.release()
        for group in self.groups:
            group.map.release()
            forget(group)

    def rest(self) -> None:
        """Let go of the buffers that a step leaves for the next one."""
        for group in self.groups:
            group.map.rest()

    @property
    def kept_bytes(self) -> int:
        """Bytes that stay in memory to be fast, beyond what a model consists of. See `release`."""
        held = () if self._held is None else (self._held.weights, self._held.copies)
        state = [(group.generator.tables(), group.drawn) for group in self.groups]
        return kept_bytes(self.groups, held, but=state)

    def _close(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the owner's forward, even if it failed: drop the weights."""
        is_compiling = torch.compiler.is_dynamo_compiling()
        if is_compiling or self._has_filled:
            self._empty_spots()
        if is_compiling:
            return
        opened = self._opened.pop(get_ident(), None)
        if isinstance(opened, Tape):
            try:
                opened.check_unwritten()
            finally:
                opened.close()

    def _open_part(self, part: nn.Module, args: Any) -> None:
        """Before the forward of a part that has all weights: as the owner's, unless that runs."""
        is_compiling = torch.compiler.is_dynamo_compiling()
        if not (self._has_filled if is_compiling else get_ident() in self._opened):
            self._open(part, args)
            self._opener[_thread()] = id(part)

    def _close_part(self, part: nn.Module, args: Any, output: Any) -> None:
        if self._opener.get(_thread()) == id(part):
            del self._opener[_thread()]
            self._close(part, args, output)

    # Copies.

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_opened": {}, "_opener": {}, "_held": None}
        del state["_parts"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _has_filled=False)
        self._parts = WeakKeyDictionary()
        self.state.move_spots()
        watch(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Constraint":
        if id(self.owner) not in memo:
            raise TargetError(
                "A part of a constrained model was copied without its free vector: "
                f"copy the model that owns it ({type(self.owner).__name__}), "
                "or lincon.merge(model) first."
            )
        copy = object.__new__(Constraint)
        memo[id(self)] = copy
        owner = deepcopy(self.owner, memo)
        own = {"owner": owner, "state": deepcopy(self.state, memo)}
        copy.__setstate__({**self.__getstate__(), **own})
        return copy


def _traced() -> bool:
    """Whether a compiler, a transform of torch.func, make_fx or forward mode runs.

    They need operations that they can trace or differentiate.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    return forward_ad._current_level >= 0 or is_recording_operators()


def _thread() -> int:
    """The thread that runs this forward; 0 if it is compiled."""
    return 0 if torch.compiler.is_dynamo_compiling() else get_ident()


def check_module(model: Any) -> None:
    """Raise TargetError unless a model is a module."""
    if not isinstance(model, nn.Module):
        raise TargetError(
            f"Expected a model, a torch.nn.Module, and got {model!r}. It comes first, as in "
            "lincon.load(model, path)."
        )


def constraints(model: nn.Module) -> list[Constraint]:
    """The constraints of a model and of the modules in it, each once.

    Warns if several are copies of one, because each copy then has its own free vector. This happens
    if a constrained layer is cloned, as nn.TransformerEncoder does.

    >>> import lincon
    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    >>> constraint = lincon.constrain(model[0], "hash", dof=8)
    >>> lincon.constraints(model) == [constraint]
    True
    """
    check_module(model)
    result: list[Constraint] = holders(model)
    if len({constraint.copied_from for constraint in result}) < len(result):
        warnings.warn(
            "Several constraints here are copies of one, each with a free vector of its own: "
            "to share one, build the whole model first and constrain that.",
            LinconWarning,
            stacklevel=2,
        )
    return result


def owned(model: nn.Module) -> list[tuple[str, Constraint]]:
    """`constraints`, each with the first of its owner's `prefixes`."""
    return [(prefixes(model, constraint.owner)[0], constraint) for constraint in constraints(model)]
