"""Matching a model file with a model, before `load` changes anything: `match`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.claims import claimed
from lincon.attaching.constraint import owned
from lincon.attaching.group import Group
from lincon.attaching.state import prefixes
from lincon.attaching.targets import Target, targets
from lincon.errors import FileError, TargetError
from lincon.files.base import BaseJson, differing
from lincon.files.contents import Contents, inspect
from lincon.files.description import TABLES, GroupRecord, sha_of, tables_prefix
from lincon.files.entry import without_entries
from lincon.processes.shards import check_unsharded, is_shard


@dataclass(frozen=True)
class OwnerPlan:
    """The changes that loading makes to a module that owns free vectors.

    Attributes:
        prefix: the prefix of its tensors' names in the model.
        groups: its groups, as the file describes them.
        targets: the tensors to constrain; none if they are constrained already.
        origins: W₀ by name of its buffer.
    """

    prefix: str
    groups: list[Group]
    targets: list[Target]
    origins: dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """The changes that loading makes.

    Attributes:
        owners: the changes to each owner.
        state: the tensors that loading fills, by name in the model.
    """

    owners: list[OwnerPlan]
    state: dict[str, Tensor]


def match(model: nn.Module, path: str | os.PathLike[str]) -> Plan:
    """Check that a file fits the model, which does not change.

    Raises:
        FileError: the file is damaged or does not fit.
        TargetError: the model is sharded.
    """
    return _Match(model, inspect(path)).plan()


@dataclass(frozen=True)
class _Match:
    """A file, and the model that it may fit."""

    model: nn.Module
    contents: Contents

    def plan(self) -> Plan:
        existing = self._existing()
        # The ledger is checked first. If it fits, G has the size of the model, so that no file can
        # take more memory.
        chosen: dict[str, list[Target]] = {}
        for prefix, records in self.contents.records.items():
            chosen[prefix] = [] if existing else self._targets(prefix, records)
        if existing:
            self._check_rows(existing)
        groups = {prefix: self._groups(prefix) for prefix in self.contents.records}
        if existing and _by_name(existing) != _by_name(groups):
            raise self._constrained_otherwise()
        _, derived = self._own_names(groups)
        # A module that writes what it likes to a state_dict has written generated weights too.
        state = {name: tensor for name, tensor in self._state().items() if name not in derived}
        self._check_state(state, groups)
        owners = []
        for prefix, of_owner in groups.items():
            self._check_values(prefix, of_owner, chosen[prefix], state)
            origins = self._origins(prefix, of_owner)
            owners.append(OwnerPlan(prefix, of_owner, chosen[prefix], origins))
        return Plan(owners, state)

    def _refusal(self, why: str) -> FileError:
        kind = type(self.model).__name__
        return FileError(f"{self.contents.path} does not fit this {kind}: {why}")

    def _constrained_otherwise(self) -> FileError:
        return self._refusal(
            "the model is constrained already, in another way; load into a fresh one."
        )

    def _owner(self, prefix: str) -> nn.Module:
        return self.model.get_submodule(prefix.rstrip("."))

    def _existing(self) -> dict[str, list[Group]]:
        """The groups that the model has already, by the prefix of their owner."""
        existing: dict[str, list[Group]] = {}
        for prefix, constraint in owned(self.model):
            existing.setdefault(prefix, []).extend(constraint.groups)
        return existing

    def _check_rows(self, existing: dict[str, list[Group]]) -> None:
        here = {p: sum(group.ledger.rows for group in of) for p, of in existing.items()}
        records = self.contents.records
        stored = {p: sum(record.ledger.rows for record in of) for p, of in records.items()}
        if here != stored:
            raise self._constrained_otherwise()

    def _targets(self, prefix: str, records: list[GroupRecord]) -> list[Target]:
        """The model's tensors that the ledgers of an owner name."""
        try:
            owner = self._owner(prefix)
        except AttributeError:
            raise self._refusal(f"it has no module {prefix.rstrip('.')!r}.") from None
        check_unsharded(owner)
        entries = [entry for record in records for entry in record.ledger]
        try:
            return claimed(owner, prefix, entries, "the file")
        except TargetError as error:
            raise self._refusal(str(error)) from None

    def _groups(self, prefix: str) -> list[Group]:
        """The groups of an owner, with their generators."""
        contents = self.contents
        stored = _without_prefix(contents.tensors, prefix)
        groups = []
        for record in contents.records[prefix]:
            tables = _without_prefix(contents.tensors, tables_prefix(prefix, record.free))
            try:
                groups.append(record.build(stored, tables))
            except ValueError as error:
                saved_by = f"{contents.path}, saved by lincon {contents.header['lincon']}"
                raise FileError(f"{saved_by}: {error}") from None
        return groups

    def _state(self) -> dict[str, Tensor]:
        """The stored tensors of the model's state_dict, under all their names."""
        contents = self.contents
        stored = contents.tensors.items()
        state = {name: tensor for name, tensor in stored if not name.startswith(TABLES)}
        for alias, name in contents.header.get("aliases", {}).items():
            if name not in state:
                raise FileError(
                    f"{contents.path}: {name!r} is not among its tensors; get another copy."
                )
            state[alias] = state[name]
        return state

    def _check_state(self, state: dict[str, Tensor], groups: dict[str, list[Group]]) -> None:
        """Raise FileError unless the unconstrained tensors of file and model match."""
        free, derived = self._own_names(groups)
        present = {k: v for k, v in self.model.state_dict().items() if isinstance(v, Tensor)}
        here = without_entries({k: v for k, v in present.items() if k not in free | derived})
        if base := self.contents.header.get("base"):
            rest = {name: here.pop(name) for name in here.keys() - state.keys()}
            self._check_base(base, rest)
        wanted = {name: tuple(tensor.shape) for name, tensor in here.items()}
        stored = {k: tuple(v.shape) for k, v in state.items() if k not in free}
        for name in sorted(wanted.keys() | stored.keys()):
            if wanted.get(name) != stored.get(name):
                in_file, in_model = stored.get(name, "not"), wanted.get(name, "not")
                raise self._refusal(f"{name!r} is {in_file} in the file and {in_model} here.")
            self._check_dtype(name, state[name], present[name].dtype)

    def _check_base(self, base: BaseJson, rest: dict[str, Tensor]) -> None:
        """Raise FileError unless the tensors that an adapter lacks are those it was saved on."""
        for name, tensor in rest.items():
            if tensor.is_meta or is_shard(tensor):
                where = "on the meta device" if tensor.is_meta else "sharded over the ranks"
                raise self._refusal(
                    f"{name!r} is {where}, and cannot be compared with the model that the file was "
                    "saved on: load the file first, into a complete model."
                )
        try:
            others = differing(base, rest)
        except ValueError as error:
            raise FileError(
                f"{self.contents.path}: its base is damaged ({error}); get another copy."
            ) from None
        if others is None:
            return
        names = ", ".join(map(repr, others[:8])) + (", ..." if others[8:] else "")
        differ = f"{names} differ or are new" if others else "it lacks some of that one's tensors"
        raise self._refusal(
            "the file holds what was trained alone, and this is not the model that it was trained "
            f"on: {differ}. Load the same weights before, in the same dtype."
        )

    def _own_names(self, groups: dict[str, list[Group]]) -> tuple[set[str], set[str]]:
        """The model's names of free vectors and steps, and those of generated tensors and W₀."""
        free: set[str] = set()
        derived: set[str] = set()
        for first, of_owner in groups.items():
            for prefix in prefixes(self.model, self._owner(first)):
                for group in of_owner:
                    free |= {prefix + name for name in (group.free, group.steps) if name}
                    names = [name for entry in group.ledger for name in entry.names]
                    origins = [group.origin] if group.origin else []
                    derived |= {prefix + name for name in names + origins}
        return free, derived

    def _check_values(
        self, prefix: str, groups: list[Group], chosen: list[Target], state: dict[str, Tensor]
    ) -> None:
        """Raise FileError unless the model's dtypes can hold the stored free vectors and steps."""
        owner = self._owner(prefix)
        dtypes = {name: target.tensor.dtype for target in chosen for name in target.names}
        for group in groups:
            for name in (group.free, group.steps):
                if name is None:
                    continue
                stored = state[prefix + name]
                bound = owner._parameters.get(name, owner._buffers.get(name))
                weights = dtypes.get(group.ledger.entries[0].name, stored.dtype)
                beside = dtype_beside(stored, weights)
                self._check_dtype(prefix + name, stored, beside if bound is None else bound.dtype)

    def _check_dtype(self, name: str, stored: Tensor, dtype: torch.dtype) -> None:
        """Raise FileError if ``dtype`` is of another kind or cannot hold the stored values.

        The kinds are complex, real, integer and bool. Finite values must stay finite.
        """
        if _kind(stored.dtype) != _kind(dtype):
            raise self._refusal(f"{name!r} is {stored.dtype} in the file and {dtype} here.")
        if stored.dtype != dtype:
            overflows = stored.isfinite() & ~stored.to(dtype).isfinite()
            if bool(overflows.any()):
                raise self._refusal(
                    f"{name!r} is {dtype} here, which cannot hold its values in the file."
                )

    def _origins(self, prefix: str, groups: list[Group]) -> dict[str, Tensor]:
        """W₀ of each group that has one, by name of its buffer.

        It comes from the generator, or from the model's weights. Raises FileError if these are not
        the ones that the file was saved with.
        """
        records = {record.free: record for record in self.contents.records[prefix]}
        owner = self._owner(prefix)
        weights = {name: t.tensor for t in targets(owner) for name in t.names}
        origins = {}
        for group in groups:
            if group.origin is None:
                continue
            origin = _origin(group, weights, owner._buffers.get(group.origin))
            described = records[group.free].origin
            of_model = group.generator.offset() is None
            if of_model and described and sha_of(origin) != described["sha256"]:
                raise self._refusal(
                    "the file's W₀ differs from the weights of this model; "
                    f"give it the same base in the same dtype (here {origin.dtype})."
                )
            origins[group.origin] = origin
        return origins


def dtype_beside(stored: Tensor, weights: torch.dtype) -> torch.dtype:
    """The dtype of a free vector or steps for weights of a dtype. Integers keep their own."""
    return weights if stored.is_floating_point() else stored.dtype


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by the rest of their names."""
    under: Iterator[str] = (name for name in tensors if name.startswith(prefix))
    return {name[len(prefix) :]: tensors[name] for name in under}


def _by_name(groups: dict[str, list[Group]]) -> dict[str, list[Group]]:
    """The groups of each owner in the order of their names."""
    return {prefix: sorted(of, key=lambda group: group.free) for prefix, of in groups.items()}


def _origin(group: Group, weights: dict[str, nn.Parameter], bound: Tensor | None) -> Tensor:
    """W₀, (rows,), as the model has it now."""
    if bound is not None:
        return bound
    own = group.generator.offset()
    if own is None:
        return torch.cat([weights[entry.name].detach().reshape(-1) for entry in group.ledger])
    return own.to(weights[group.ledger.entries[0].name].detach())


def _kind(dtype: torch.dtype) -> tuple[Any, ...]:
    return dtype.is_complex, dtype.is_floating_point, dtype == torch.bool
