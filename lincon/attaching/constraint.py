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
from lincon.errors import FileError, LinconWarning, TargetError
from lincon.files.entry import entry_of, has_values, is_entry, restored
from lincon.processes.shards import check_unsharded, is_shard, shared
from lincon.step.held_tape import HeldTape, may_hold
from lincon.step.layer_tape import LayerTape
from lincon.step.layout import Layout
from lincon.step.model_tape import ModelTape
from lincon.step.refusals import check_untraced, is_recording_operators
from lincon.step.tape import Tape, version_of
from lincon.step.traced import Spot
from lincon.step.weight import Weight

FITTED = 1e-4
"""A dense checkpoint is fitted without a warning up to this relative residual."""


class Constraint:
    """Ŵ = G W (+ W₀) on some tensors of ``owner``. `lincon.constrain` and `lincon.load` make it.

    Attributes:
        owner: the module that was constrained; its parameters hold the free vectors.
        vectors: the free vectors, one for each group. A tool that sets tensors one by one leaves an
            entry (see `lincon.files.entry`) in an empty buffer of the owner; whoever asks for the
            vectors next gets them with its multipliers, or an error.
        residual: relative residual ‖G W - target‖ / ‖target‖ of the last projection, or None.
        materialize: "model" generates all weights once a forward, in one operation a group. "layer"
            generates each weight when it is used, frees it, and generates it again for the
            backward, so that Ŵ never exists as a whole.
        copied_from: an identifier that deep copies share.
        trainable: names of the owner's parameters that were trainable when it was constrained.
    """

    def __init__(self, owner: nn.Module, groups: list[Group], materialize: str = "model") -> None:
        self.owner = owner
        self._vectors = [FreeVector(owner, group) for group in groups]
        self._entries = tuple(group.entry for group in groups)
        self.materialize = materialize
        self.residual: float | None = None
        self.copied_from = uuid4().hex
        self.trainable = frozenset(n for n, p in owner.named_parameters() if p.requires_grad)
        self.layouts = [Layout.of(group) for group in groups]
        self.spots = [
            [Spot(vector, index) for index in range(len(vector.group.ledger))]
            for vector in self._vectors
        ]
        self._held: HeldTape | None = None
        self._opened: dict[int, Tape | list[list[Tensor]]] = {}
        self._parts: WeakKeyDictionary[nn.Module, None] = WeakKeyDictionary()
        self._opener: dict[int, int] = {}
        self._warned_of_part = False
        watch(self)

    @property
    def vectors(self) -> list[FreeVector]:
        buffers, given = self.owner._buffers, self.owner.__dict__
        for name in self._entries:  # every step comes here: this must be quick
            if buffers.get(name) is not None or (name in given and _is_written(given[name])):
                _receive(self) if torch.compiler.is_compiling() else self.receive()
                break
        return self._vectors

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
        self._set(vectors)
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
        named: dict[str, Tensor] = {}
        for vector in self.vectors:
            names = [entry.name for entry in vector.group.ledger]
            named.update(zip(names, vector.weights(), strict=True))
        return named

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
        self._check_exact()
        fitted, self.residual = self.fit(weights)
        with torch.no_grad():
            for vector, free in zip(self.vectors, fitted, strict=True):
                vector.parameter.copy_(free)
        return self.residual

    def fit(self, weights: Mapping[str, Tensor]) -> tuple[list[Tensor], float]:
        """The least-squares free vectors for given weights, and the relative residual.

        The model does not change.
        """
        fits = [vector.fit(weights) for vector in self.vectors]
        missed = sum(missed for _, missed, _ in fits)
        norm = sum(norm for _, _, norm in fits)
        return [free for free, _, _ in fits], (missed / norm) ** 0.5 if norm else 0.0

    def __repr__(self) -> str:
        names = ", ".join(repr(group.generator) for group in self.groups[:3])
        more = f", ... {len(self.groups)} in all" if len(self.groups) > 3 else ""
        size = f"{len(self.ledger)} tensors, {self.dof} dof -> {self.rows} rows"
        return f"Constraint({size}: {names}{more})"

    # Reading.

    def read(self, key: tuple[int, int]) -> Tensor:
        """The tensor of entry ``key`` = (group, index), from the running forward or on demand."""
        number, index = key
        opened = self._opened.get(_thread())
        if isinstance(opened, Tape):
            weight = opened.read(key)
            if weight is not None:
                return weight
        elif opened is not None:
            return opened[number][index]
        check_untraced()
        weight = self.vectors[number].weight(index)
        if _traced():
            return weight
        self._look_at_part()
        return weight.as_subclass(Weight)

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

    def is_in_graph(self) -> bool:
        """Whether the forward of the owner is part of the graph that is compiled."""
        return 0 in self._opened

    def _trains(self) -> bool:
        if not torch.is_grad_enabled():
            return False
        return any(vector.parameter.requires_grad for vector in self.vectors)

    def _move_spots(self) -> None:
        for vector, spots in zip(self._vectors, self.spots, strict=True):
            for index, spot in enumerate(spots):
                spot.move(vector, index)

    def _reads_all(self, part: nn.Module) -> bool:
        """Whether a part of the owner has all the weights that are generated."""
        names = [name for name, module in self.owner.named_modules() if module is part]
        prefixes = tuple(f"{name}." for name in names)
        return all(entry.name.startswith(prefixes) for entry in self.ledger)

    def hooks(self) -> tuple[Callable[..., None], ...]:
        """The owner's forward pre-hook and hook, load_state_dict's pre-hook, state_dict's hook."""
        return self._open, self._close, self._load, self._state

    def _open(self, module: nn.Module, args: Any) -> None:
        """Before the owner's forward: generate all weights, or start to do so layer by layer."""
        check_untraced()
        thread = _thread()
        left = self._opened.pop(thread, None)  # by a forward that failed in its hooks
        if isinstance(left, Tape):
            left.close()
        if any(vector.parameter.is_meta for vector in self.vectors):
            # There are only shapes; or the forward itself fetches the values, as offloading does.
            return
        if not _traced():
            self._opened[thread] = self._tape()
        elif self.materialize == "model":
            self._opened[thread] = [vector.weights() for vector in self.vectors]

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
        """Let go of the weights that forwards without gradients use again.

        Such a forward (under `torch.no_grad`, in inference mode, or of frozen free vectors) leaves
        Ŵ in memory for the next one, with a copy of the free vectors; with ``materialize="layer"``
        or an offset it leaves nothing. The next forward that trains lets go of them too.

        On a GPU it also lets go of what `lincon.kernels.release` does, for all models.

        >>> import lincon
        >>> model = nn.Sequential(nn.Linear(8, 4))
        >>> constraint = lincon.constrain(model, "ring", dof=16)
        >>> with torch.no_grad():
        ...     output = model(torch.ones(1, 8))
        >>> constraint.release()
        """
        self._held = None
        kernels.release()

    def _close(self, module: nn.Module, args: Any, output: Any) -> None:
        """After the owner's forward, even if it failed: drop the weights."""
        opened = self._opened.pop(_thread(), None)
        if isinstance(opened, Tape):
            try:
                opened.check_unwritten()
            finally:
                opened.close()

    def _open_part(self, part: nn.Module, args: Any) -> None:
        """Before the forward of a part that has all weights: as the owner's, unless that runs."""
        if _thread() not in self._opened:
            self._open(part, args)
            self._opener[_thread()] = id(part)

    def _close_part(self, part: nn.Module, args: Any, output: Any) -> None:
        if self._opener.get(_thread()) == id(part):
            del self._opener[_thread()]
            self._close(part, args, output)

    def _state(
        self, module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any
    ) -> None:
        """After the owner's state_dict: add an entry for each group, and drop generated weights.

        A module that writes what it likes to a state_dict writes these as well.
        """
        for name in self._generated_names():
            state_dict.pop(prefix + name, None)
        for vector in self.vectors:
            group = vector.group
            # Tools ask for the attribute of this name too, and some write to the tensor in place.
            entry = vars(self.owner)[group.entry] = entry_of(group)
            state_dict[prefix + group.entry] = entry

    def _load(
        self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *reports: Any
    ) -> None:
        """Before the owner's load_state_dict: take the multipliers, or fit a dense checkpoint.

        Everything is checked before anything in the owner changes, its parts included.
        """
        self._check_state(state_dict, prefix)
        self._take(state_dict, prefix)
        dense = self._dense(state_dict, prefix)
        if dense:
            for name in dense:
                del state_dict[prefix + name]
            _, _, missing_keys, *_ = reports
            missing_keys += [prefix + name for name in self._complete(dense)]
            for name, tensor in self._fitted(dense).items():
                state_dict.setdefault(prefix + name, tensor)

    def _check_state(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Raise FileError or TargetError if the owner or a part of it cannot take a state_dict."""
        placed = [
            (constraint, prefix + part)
            for constraint in _all_in(self.owner)
            for part in prefixes(self.owner, constraint.owner)
        ]
        for constraint, place in placed:
            constraint.share_entries(state_dict, place)
        for constraint, place in placed:
            constraint.check_values(state_dict, place)
            constraint.stated(state_dict, place)
        known = {place + name for constraint, place in placed for name in constraint._entries}
        for name, tensor in state_dict.items():
            if name.startswith(prefix) and name not in known and is_entry(name, tensor):
                raise self._of_unknown(name, state_dict, prefix)

    def _of_unknown(self, name: str, state_dict: Mapping[str, Any], prefix: str) -> FileError:
        """The refusal of an entry of a free vector that the owner does not have."""
        front = name[len(prefix) :].partition(".")[0]
        is_child = front in dict(self.owner.named_children())
        if not is_child and all(key.startswith(f"{prefix}{front}.") for key in state_dict):
            return FileError(
                f"All names in the state_dict begin with {front + '.'!r}, as those of a wrapper do "
                "(DDP, torch.compile), and those here do not: take that off "
                "(torch.nn.modules.utils.consume_prefix_in_state_dict_if_present)."
            )
        names = ", ".join(repr(vector.group.free) for vector in self._vectors)
        return FileError(
            f"The state_dict has {name!r}, of a free vector that this "
            f"{type(self.owner).__name__} does not have (here: {names}): the scope is "
            "another one. Constrain the model in the same way (lincon.constrain_like)."
        )

    def share_entries(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Give every rank of a sharded model the entries of a state_dict.

        Where rank 0 broadcasts a state_dict, torch sends parameters and buffers alone.
        """
        shard = next((v.parameter for v in self._vectors if is_shard(v.parameter)), None)
        if shard is not None:
            keys = [prefix + name for name in self._entries]
            here = {key: state_dict[key].cpu() for key in keys if key in state_dict}
            state_dict.update(shared(here, shard))

    def stated(self, state_dict: Mapping[str, Any], prefix: str) -> list[Group]:
        """The groups, with the multipliers that a state_dict has for them. Nothing changes.

        Raises:
            FileError: an entry is damaged, or describes another G.
        """
        groups = []
        for vector in self._vectors:
            entry = state_dict.get(prefix + vector.group.entry)
            if isinstance(entry, Tensor) and has_values(entry):
                groups.append(restored(vector, entry))
            else:
                groups.append(vector.group)
        return groups

    def check_values(self, state_dict: Mapping[str, Any], prefix: str) -> None:
        """Raise TargetError if free vectors or dense weights in a state_dict cannot be taken."""
        self._check_quantised(state_dict, prefix)
        dense = self._dense(state_dict, prefix)
        if dense:
            self._check_exact()
            for vector in self._vectors:
                vector.check(dense)

    def _dense(self, state_dict: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
        """The generated weights by name, if a state_dict has them in the place of free vectors."""
        if any(prefix + vector.group.free in state_dict for vector in self._vectors):
            return {}
        keys = {name: prefix + name for name in self._generated_names()}
        return {name: state_dict[key] for name, key in keys.items() if key in state_dict}

    def _take(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Take the multipliers from a state_dict, and what is no tensor of the owner out of it."""
        free = [v.group.free for v in self._vectors if prefix + v.group.free in state_dict]
        silent = [
            vector.group.free
            for vector in self._vectors
            if vector.group.free in free and prefix + vector.group.entry not in state_dict
        ]
        if silent:
            self._say_unstated(silent)
        self._set([FreeVector(self.owner, group) for group in self.stated(state_dict, prefix)])
        for name in self._entries:
            state_dict.pop(prefix + name, None)
        if free:  # weights beside them were written by a module that writes what it likes
            for name in self._generated_names():
                state_dict.pop(prefix + name, None)

    def _say_unstated(self, free: list[str]) -> None:
        """Warn of free vectors without an entry: a state_dict from before there were any."""
        names = ", ".join(map(repr, free))
        warnings.warn(
            f"The state_dict does not say of what G {names} is: it is right only for a model that "
            "was constrained in the same way, from the same initial weights (scale='match').",
            LinconWarning,
            stacklevel=2,
        )

    def _generated_names(self) -> list[str]:
        entries = [entry for vector in self._vectors for entry in vector.group.ledger]
        return [name for entry in entries for name in entry.names]

    def _set(self, vectors: list[FreeVector], empty: bool = True) -> None:
        """Replace the vectors. Entries in the owner say nothing new any more."""
        self._vectors = vectors
        self._move_spots()
        if empty:
            for name in self._entries:
                vars(self.owner).pop(name, None)
                self.owner._buffers[name] = None

    def receive(self, empty: bool = True) -> None:
        """Take the multipliers of entries that a tool has left in the owner, tensor by tensor.

        ``empty`` takes the entries away as well.

        Raises:
            FileError: an entry is damaged, is of another G, or cannot be read or kept.
        """
        left = {v.group.entry: _left(self.owner, v.group.entry) for v in self._vectors}
        if any(entry is not None and not has_values(entry) for entry in left.values()):
            if all(has_values(vector.parameter) for vector in self._vectors):
                raise FileError(
                    "What says of what G the free vectors are is on the meta device and they are "
                    "not: do not offload it, or use lincon.load."
                )
            return
        groups = self.stated(left, "")
        # functional_call puts tensors into the owner for one call, and nothing may last.
        lasting = all(isinstance(vector.parameter, nn.Parameter) for vector in self._vectors)
        if lasting:
            self._set([FreeVector(self.owner, group) for group in groups], empty)
        elif any(group is not v.group for group, v in zip(groups, self._vectors, strict=True)):
            raise FileError(
                "functional_call was given free vectors whose multipliers are not those of the "
                "model: load_state_dict them into a copy of it, and call that."
            )

    def _fitted(self, dense: dict[str, Tensor]) -> dict[str, Any]:
        """What a state_dict has in the place of dense weights: free vectors and W₀, by name."""
        fitted, self.residual = self.fit(dense)
        if self.residual > FITTED:
            warnings.warn(
                "The checkpoint holds dense weights; the free vectors are fitted to them with a "
                f"relative residual of {self.residual:.3g}.",
                LinconWarning,
                stacklevel=2,
            )
        state: dict[str, Any] = {}
        for vector, free in zip(self.vectors, fitted, strict=True):
            state[vector.group.free] = free.to(vector.parameter)
            if vector.group.origin is not None:
                state[vector.group.origin] = vector.origin
        return state

    def _complete(self, dense: dict[str, Tensor]) -> list[str]:
        """Add the weights as they are for tensors that a checkpoint lacks; the names of these."""
        entries = [e for e in self.ledger if not any(name in dense for name in e.names)]
        if entries:  # weights are generated only if some are missing
            with torch.no_grad():
                own = self.weights()
            dense.update({entry.name: own[entry.name] for entry in entries})
        return [entry.name for entry in entries]

    def _check_exact(self) -> None:
        """Raise TargetError if the free vectors cannot store a fit: if quantised or sharded."""
        check_unsharded(self.owner)
        for group in (vector.group for vector in self._vectors):
            if group.steps is not None:
                raise TargetError(
                    f"{group.free!r} is quantised: project the model it was made from, "
                    "and quantise again."
                )

    def _check_quantised(self, state_dict: Mapping[str, Any], prefix: str) -> None:
        """Raise TargetError if numbers would be loaded as integers, or integers as numbers."""
        for group in (vector.group for vector in self._vectors):
            stored = state_dict.get(prefix + group.free)
            quantised = group.steps is not None
            if isinstance(stored, Tensor) and stored.is_floating_point() == quantised:
                wanted = "integers" if quantised else "numbers"
                raise TargetError(
                    f"{group.free!r} takes {wanted}, but the state_dict has {stored.dtype}: "
                    "lincon.quantize both models or neither, or lincon.save the other and "
                    "lincon.load the file into a fresh one."
                )

    # Copies.

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_opened": {}, "_opener": {}, "_held": None}
        del state["_parts"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._parts = WeakKeyDictionary()
        self._move_spots()
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
        vectors = [FreeVector(owner, vector.group) for vector in self._vectors]
        own = {"owner": owner, "_vectors": vectors, "spots": deepcopy(self.spots, memo)}
        copy.__setstate__({**self.__getstate__(), **own})
        return copy


def _left(owner: nn.Module, name: str) -> Tensor | None:
    """The entry that a tool has left in an owner, or has written to after it was given; or None."""
    left: Tensor | None = owner._buffers.get(name)
    given: Tensor | None = vars(owner).get(name)
    return given if left is None and given is not None and _is_written(given) else left


def _is_written(given: Tensor) -> bool:
    """Whether an entry was written to; a compiler does not ask."""
    return not torch.compiler.is_compiling() and version_of(given) > 0


def _receive(constraint: Constraint) -> None:
    """`Constraint.receive` where a compiler traces: it runs this once, and compares tensors later."""
    constraint.receive(empty=False)


# As torch.compiler.assume_constant_result does, which imports the compiler.
_receive._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _traced() -> bool:
    """Whether a compiler, a transform of torch.func, make_fx or forward mode runs.

    They need operations that they can trace or differentiate.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    return forward_ad._current_level >= 0 or is_recording_operators()


def _thread() -> int:
    """The thread that runs this forward, because threads do not share weights; 0 if compiled."""
    return 0 if torch.compiler.is_compiling() else get_ident()


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
    result = _all_in(model)
    if len({constraint.copied_from for constraint in result}) < len(result):
        warnings.warn(
            "Several constraints here are copies of one, each with a free vector of its own: "
            "to share one, build the whole model first and constrain that.",
            LinconWarning,
            stacklevel=2,
        )
    return result


def _all_in(model: nn.Module) -> list[Constraint]:
    by_identity: dict[int, Constraint] = {}
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            holder = getattr(hook, "__self__", None)
            if isinstance(holder, Constraint) and holder.owner is module:
                by_identity[id(holder)] = holder
    return list(by_identity.values())


def prefixes(model: nn.Module, owner: nn.Module) -> list[str]:
    """The prefixes of an owner's names in the model: "" or "owner.", one for each place it has."""
    modules = model.named_modules(remove_duplicate=False)
    return [f"{name}." if name else "" for name, module in modules if module is owner]


def owned(model: nn.Module) -> list[tuple[str, Constraint]]:
    """`constraints`, each with the first of its owner's `prefixes`."""
    return [(prefixes(model, constraint.owner)[0], constraint) for constraint in constraints(model)]
