"""Whether a model file fits a model: all that is checked before `load` changes anything."""

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.constraint import owned, prefixes
from lincon.attaching.group import Group
from lincon.attaching.ledger import Ledger
from lincon.attaching.targets import Target, targets
from lincon.errors import FileError, in_a_line
from lincon.files.contents import TABLES, Contents, inspect
from lincon.files.header import sha_of
from lincon.maps.registry import build
from lincon.processes.shards import check_unsharded


@dataclass(frozen=True)
class Plan:
    """What loading will do: by prefix of the owner, groups, the tensors to be constrained (none, where they are), and
    W₀; and the tensors that are filled in.
    """

    groups: dict[str, list[Group]]
    chosen: dict[str, list[Target]]
    origins: dict[str, dict[str, Tensor]]
    state: dict[str, Tensor]


def fit(model: nn.Module, path: str | os.PathLike[str]) -> Plan:
    """Check that a file fits the model; nothing is changed."""
    contents = inspect(path)
    where = f"{path} does not fit this {type(model).__name__}"
    existing: dict[str, list[Group]] = {}
    for prefix, constraint in owned(model):
        existing.setdefault(prefix, []).extend(constraint.groups)
    ledgers = _ledgers(contents)  # before any G is made: its size is the model's then
    chosen = (
        {} if existing else {p: _check_ledger(model, p, each, where) for p, each in ledgers.items()}
    )
    other = f"{where}: the model is constrained already, in another way; load into a fresh one."
    if existing and {p: sum(g.ledger.rows for g in gs) for p, gs in existing.items()} != {
        p: sum(ledger.rows for ledger in each) for p, each in ledgers.items()
    }:
        raise FileError(other)
    groups = _rebuild_groups(contents)
    if existing and not _same(existing, groups):
        raise FileError(other)
    state = {k: v for k, v in contents.tensors.items() if not k.startswith(TABLES)}
    aliases = contents.header.get("aliases", {})
    if strange := [first for first in aliases.values() if first not in state]:
        raise FileError(f"{path}: {strange[0]!r} is not among its tensors; get another copy.")
    state.update({name: state[first] for name, first in aliases.items()})
    _check_state(model, state, groups, where)
    for prefix, each in groups.items():
        _check_values(
            model.get_submodule(prefix.rstrip(".")),
            prefix,
            each,
            chosen.get(prefix, []),
            state,
            where,
        )
    origins = {p: _origins(model, p, gs, contents, where) for p, gs in groups.items()}
    return Plan(groups, chosen, origins, state)


def _ledgers(contents: Contents) -> dict[str, list[Ledger]]:
    """The ledgers of each owner."""
    found: dict[str, list[Ledger]] = {}
    for constraint in contents.header["constraints"]:
        found.setdefault(constraint["owner"], []).extend(
            Ledger.from_json(g["ledger"]) for g in constraint["groups"]
        )
    return found


def _rebuild_groups(contents: Contents) -> dict[str, list[Group]]:
    """The groups of each owner; every generator is checked against its fingerprint."""
    groups: dict[str, list[Group]] = {}
    for constraint in contents.header["constraints"]:
        prefix = constraint["owner"]
        for described in constraint["groups"]:
            start = f"{TABLES}{prefix}{described['free']}."
            tables = {
                k[len(start) :]: v for k, v in contents.tensors.items() if k.startswith(start)
            }
            ledger = Ledger.from_json(described["ledger"])
            free, spec = contents.tensors.get(prefix + described["free"]), described["generator"]
            if free is None or free.shape != (spec["dof"],) or ledger.rows != spec["rows"]:
                raise FileError(
                    f"{contents.path}: {described['free']!r}, its ledger and its generator do not agree."
                )
            try:
                generator = build(spec, tables)
                fingerprint = generator.fingerprint()
            except Exception as error:  # whatever a generator makes of options that are none
                raise FileError(
                    f"{contents.path}: {spec['name']!r} cannot be made ({in_a_line(error)})."
                ) from None
            if fingerprint != described["fingerprint"]:
                raise FileError(
                    f"{contents.path}: this lincon makes another G of {generator!r} than the one that saved the file; "
                    f"install lincon {contents.header['lincon']}."
                )
            origin = described.get("origin", {}).get("name")
            group = Group(
                described["free"], generator, ledger, bool(described["isometric"]), origin
            )
            groups.setdefault(prefix, []).append(
                _with_steps(group, described.get("steps"), contents, prefix)
            )
    return groups


def _with_steps(
    group: Group, described: dict[str, Any] | None, contents: Contents, prefix: str
) -> Group:
    """The group, quantised as the file says; what it stores must fit."""
    free = contents.tensors[prefix + group.free]
    if described is None and free.is_floating_point():
        return group
    try:
        name, size = (str(described["name"]), int(described["size"])) if described else ("", 0)
    except (KeyError, TypeError, ValueError):
        name, size = "", 0
    steps = contents.tensors.get(prefix + name)
    fits = (
        0 < size <= max(1, len(free))
        and free.dtype == torch.int8
        and steps is not None
        and steps.is_floating_point()
    )
    if not fits or steps is None or steps.shape != (-(-len(free) // size),):
        raise FileError(
            f"{contents.path}: {group.free!r} and the steps of its integers do not agree."
        )
    return replace(group, steps=name, size=size)


def _same(existing: dict[str, list[Group]], groups: dict[str, list[Group]]) -> bool:
    def essence(gs: list[Group]) -> list[tuple[Any, ...]]:
        return [
            (g.free, g.generator, g.ledger, g.isometric, g.origin, g.steps, g.size)
            for g in sorted(gs, key=lambda g: g.free)
        ]

    return {p: essence(gs) for p, gs in existing.items()} == {
        p: essence(gs) for p, gs in groups.items()
    }


def _check_ledger(model: nn.Module, prefix: str, ledgers: list[Ledger], where: str) -> list[Target]:
    """The model's tensors that the ledger names; refused if one is missing, has another shape, or other ties."""
    try:
        owner = model.get_submodule(prefix.rstrip("."))
    except AttributeError:
        raise FileError(f"{where}: it has no module {prefix.rstrip('.')!r}.") from None
    check_unsharded(owner)
    present = {name: target for target in targets(owner) for name in target.names}
    chosen = []
    for entry in (entry for ledger in ledgers for entry in ledger):
        target = present.get(entry.name)
        if target is None:
            raise FileError(
                f"{where}: it has no tensor {prefix + entry.name!r} (renamed, or another architecture)."
            )
        if tuple(target.tensor.shape) != entry.shape:
            raise FileError(
                f"{where}: {prefix + entry.name!r} is {entry.shape} in the file and {tuple(target.tensor.shape)} here."
            )
        if set(target.names) != set(entry.names):
            raise FileError(
                f"{where}: {entry.names} are one tensor in the file, {target.names} are one here."
            )
        chosen.append(target)
    return chosen


def _check_state(
    model: nn.Module, state: dict[str, Tensor], groups: dict[str, list[Group]], where: str
) -> None:
    """That what is stored besides the free vectors is just what the model has besides the generated tensors."""
    under = {p: prefixes(model, model.get_submodule(p.rstrip("."))) for p in groups}
    free = {
        p + n
        for first, gs in groups.items()
        for p in under[first]
        for g in gs
        for n in (g.free, g.steps)
        if n
    }
    generated = {
        p + n
        for first, gs in groups.items()
        for p in under[first]
        for g in gs
        for e in g.ledger
        for n in e.names
    }
    origins = {
        p + g.origin for first, gs in groups.items() for p in under[first] for g in gs if g.origin
    }
    present = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    wanted = {k: tuple(v.shape) for k, v in present.items() if k not in generated | origins | free}
    stored = {k: tuple(v.shape) for k, v in state.items() if k not in free}
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            there, here = stored.get(name, "not"), wanted.get(name, "not")
            raise FileError(f"{where}: {name!r} is {there} in the file and {here} here.")
        _check_kind(name, state[name], present[name].dtype, where)


def _check_values(
    owner: nn.Module,
    prefix: str,
    groups: list[Group],
    chosen: list[Target],
    state: dict[str, Tensor],
    where: str,
) -> None:
    """That free vectors and steps can be held in the type of the weights, or of the vectors that are there already."""
    types = {name: target.tensor.dtype for target in chosen for name in target.names}
    for group in groups:
        for name in (group.free, group.steps):
            if name is None:
                continue
            stored, there = (
                state[prefix + name],
                owner._parameters.get(name, owner._buffers.get(name)),
            )
            dtype = (
                held_as(stored, types[group.ledger.entries[0].name])
                if there is None
                else there.dtype
            )
            _check_kind(prefix + name, stored, dtype, where)


def held_as(stored: Tensor, weights: torch.dtype) -> torch.dtype:
    """The type in which a free vector or steps are held beside weights of a type: integers stay."""
    return weights if stored.is_floating_point() else stored.dtype


def _check_kind(name: str, stored: Tensor, dtype: torch.dtype, where: str) -> None:
    """That the model's type can hold what is stored: as finite, and of the same kind (complex, real, integer, bool)."""
    kinds = [(t.is_complex, t.is_floating_point, t == torch.bool) for t in (stored.dtype, dtype)]
    if kinds[0] != kinds[1]:
        raise FileError(f"{where}: {name!r} is {stored.dtype} in the file and {dtype} here.")
    if stored.dtype != dtype and bool((stored.isfinite() & ~stored.to(dtype).isfinite()).any()):
        raise FileError(
            f"{where}: {name!r} has values in the file that {dtype}, which it is here, cannot hold."
        )


def _origins(
    model: nn.Module, prefix: str, groups: list[Group], contents: Contents, where: str
) -> dict[str, Tensor]:
    """W₀ of each group that has one: the generator's, or the model's own weights if they are those of the file."""
    owner = model.get_submodule(prefix.rstrip("."))
    present = {name: t.tensor for t in targets(owner) for name in t.names}
    described = {g["free"]: g.get("origin", {}) for g in contents.groups}
    found = {}
    for group in groups:
        if group.origin is None:
            continue
        own, bound = group.generator.offset(), owner._buffers.get(group.origin)
        if bound is not None:
            origin = bound
        elif own is None:
            origin = torch.cat([present[e.name].detach().reshape(-1) for e in group.ledger])
        else:
            origin = own.to(present[group.ledger.entries[0].name].detach())
        if own is None and sha_of(origin) != described[group.free].get("sha256"):
            raise FileError(
                f"{where}: the file's W₀ differs from the weights this model has; give it the same base in the same "
                f"dtype (here {origin.dtype})."
            )
        found[group.origin] = origin
    return found
