"""The free vectors of an owner, and how a state_dict holds them.

Beside each free vector a state_dict has an entry (see `lincon.files.entry`): what G it belongs to,
with the multipliers. Loading checks everything in the owner, its constrained parts included, before
anything changes.
"""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.free_vector import FreeVector
from lincon.attaching.group import Group
from lincon.errors import FileError, LinconWarning, TargetError
from lincon.files.entry import entry_of, has_values, is_entry, restored
from lincon.processes.shards import check_unsharded, is_shard, shared
from lincon.step.tape import version_of
from lincon.step.traced import Spot

FITTED = 1e-4
"""A dense checkpoint is fitted without a warning up to this relative residual."""


class State:
    """The free vectors of ``owner``.

    A tool that sets tensors one by one leaves an entry in an empty buffer of the owner. Whoever asks
    for the vectors next gets them with its multipliers, or an error.

    Attributes:
        owner: the module whose parameters the free vectors are.
        residual: relative residual ‖G W - target‖ / ‖target‖ of the last fit that was kept, or None.
        spots: where each tensor lies, for a compiler; a list for each free vector.
    """

    def __init__(self, owner: nn.Module, groups: list[Group]) -> None:
        self.owner = owner
        self.residual: float | None = None
        self._vectors = [FreeVector(owner, group) for group in groups]
        self._entries = tuple(group.entry for group in groups)
        self.spots = [
            [Spot(vector, index) for index in range(len(vector.group.ledger))]
            for vector in self._vectors
        ]

    @property
    def vectors(self) -> list[FreeVector]:
        """The free vectors, one for each group."""
        buffers, given = self.owner._buffers, self.owner.__dict__
        for name in self._entries:  # every step comes here: this must be quick
            if buffers.get(name) is not None or (name in given and _is_written(given[name])):
                _receive(self) if torch.compiler.is_compiling() else self.receive()
                break
        return self._vectors

    def move_spots(self) -> None:
        """Tell compilers of the vectors as they are now."""
        for vector, spots in zip(self._vectors, self.spots, strict=True):
            for index, spot in enumerate(spots):
                spot.move(vector, index)

    def weights(self) -> dict[str, Tensor]:
        """All generated tensors by first name, differentiable, from one operation a group."""
        named: dict[str, Tensor] = {}
        for vector in self.vectors:
            names = [entry.name for entry in vector.group.ledger]
            named.update(zip(names, vector.weights(), strict=True))
        return named

    def fit(self, weights: Mapping[str, Tensor]) -> tuple[list[Tensor], float]:
        """The least-squares free vectors for given weights, and the relative residual.

        Nothing changes.
        """
        fits = [vector.fit(weights) for vector in self.vectors]
        missed = sum(missed for _, missed, _ in fits)
        norm = sum(norm for _, _, norm in fits)
        return [free for free, _, _ in fits], (missed / norm) ** 0.5 if norm else 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> "State":
        copy = memo[id(self)] = object.__new__(State)  # the owner's hooks lead here again
        copy.owner, copy.residual = deepcopy(self.owner, memo), self.residual
        copy._vectors = [FreeVector(copy.owner, vector.group) for vector in self._vectors]
        copy._entries, copy.spots = self._entries, deepcopy(self.spots, memo)
        return copy

    def save(
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

    def load(
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
            (holder.state, prefix + part)
            for holder in holders(self.owner)
            for part in prefixes(self.owner, holder.owner)
        ]
        for state, place in placed:
            state.share_entries(state_dict, place)
        for state, place in placed:
            state.check_values(state_dict, place)
            state.stated(state_dict, place)
        known = {place + name for state, place in placed for name in state._entries}
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
            self.check_exact()
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
        self.put([FreeVector(self.owner, group) for group in self.stated(state_dict, prefix)])
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

    def put(self, vectors: list[FreeVector], empty: bool = True) -> None:
        """Replace the vectors. Entries in the owner say nothing new any more."""
        self._vectors = vectors
        self.move_spots()
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
            self.put([FreeVector(self.owner, group) for group in groups], empty)
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
        ledgers = [vector.group.ledger for vector in self._vectors]
        entries = [
            entry
            for entry in chain.from_iterable(ledgers)
            if not any(name in dense for name in entry.names)
        ]
        if entries:  # weights are generated only if some are missing
            with torch.no_grad():
                own = self.weights()
            dense.update({entry.name: own[entry.name] for entry in entries})
        return [entry.name for entry in entries]

    def check_exact(self) -> None:
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


def _left(owner: nn.Module, name: str) -> Tensor | None:
    """The entry that a tool has left in an owner, or has written to after it was given; or None."""
    left: Tensor | None = owner._buffers.get(name)
    given: Tensor | None = vars(owner).get(name)
    return given if left is None and given is not None and _is_written(given) else left


def _is_written(given: Tensor) -> bool:
    """Whether an entry was written to; a compiler does not ask."""
    return not torch.compiler.is_compiling() and version_of(given) > 0


def _receive(state: State) -> None:
    """`State.receive` where a compiler traces: it runs this once, and compares tensors later."""
    state.receive(empty=False)


# As torch.compiler.assume_constant_result does, which imports the compiler.
_receive._dynamo_marked_constant = True  # type: ignore[attr-defined]


def holders(model: nn.Module) -> list[Any]:
    """What holds a state of a module in a model, each once: its constraints."""
    by_identity: dict[int, Any] = {}
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            holder = getattr(hook, "__self__", None)
            state = getattr(holder, "state", None)
            if isinstance(state, State) and state.owner is module:
                by_identity[id(holder)] = holder
    return list(by_identity.values())


def prefixes(model: nn.Module, owner: nn.Module) -> list[str]:
    """The prefixes of an owner's names in the model: "" or "owner.", one for each place it has."""
    modules = model.named_modules(remove_duplicate=False)
    return [f"{name}." if name else "" for name, module in modules if module is owner]
