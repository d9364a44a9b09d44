"""Model files: the free vectors, the unconstrained tensors, the spec and the ledger, in one safetensors file.

The metadata entry ``lincon`` is JSON (`FORMAT` 2; 1 where nothing is coded or quantised): for each constraint its owner
and groups, for each group the name of its free vector, the generator's spec and fingerprint, the ledger; for each
entropy-coded tensor how. Its ``sha256`` covers the rest of the JSON and every tensor as it is stored. A file is written
under a temporary name, synced and renamed; nothing is ever unpickled.
"""

import os
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from lincon.attaching.binding import (
    bind,
    check_complete,
    unbind,
    unwrapped,
    warn_of_stale_optimizers,
)
from lincon.attaching.constraint import Constraint, owned, prefixes
from lincon.attaching.group import Group
from lincon.attaching.targets import Target
from lincon.errors import FileError, LinconError
from lincon.files.atomic import whole
from lincon.files.coding import PLENTY, encode, excess
from lincon.files.contents import TABLES
from lincon.files.header import FORMAT, seal, sha_of
from lincon.files.matching import fit, held_as
from lincon.generator import Generator
from lincon.maps.registry import registered
from lincon.processes.shards import is_shard, on_every_rank, on_first, on_first_rank, spread_like


def save(model: nn.Module, path: str | os.PathLike[str], *, code: bool = True) -> int:
    """Write a model: free vectors, unconstrained tensors, spec and ledger (a plain or merged one: all its tensors).

    With ``code``, quantised free vectors and tables of small integers are entropy-coded, which loses nothing.

    Returns the size in bytes. The file is written whole or not at all: a temporary name beside ``path``, synced,
    then renamed.

    A model that is wrapped by DDP or torch.compile is saved as the module inside. One that is sharded over ranks is
    gathered, so every rank must call `save`; the first one writes.

    Raises LinconError, naming it, for what could not be loaded again: a part of a constrained model without its
    free vector, a module replaced after it was constrained, a generator that is not registered, extra state that
    is no tensor, tensors on the meta device; or if the folder does not exist.
    """
    model = unwrapped(model)
    check_complete(model)
    state = model.state_dict(keep_vars=True)  # one tensor of two names is one object
    if not any(is_shard(tensor) for tensor in state.values()):
        return _write(model, state, Path(path), code)
    made = {
        number: on_first(tensor)
        for number, tensor in {id(each): each for each in state.values()}.items()
    }
    whole_state = {name: made[id(tensor)] for name, tensor in state.items()}
    return int(on_first_rank(lambda: _write(model, whole_state, Path(path), code)))


def _write(model: nn.Module, state: dict[str, Any], path: Path, code: bool) -> int:
    """Write the file of a model whose state_dict is ``state``; its size."""
    found = owned(model)
    tensors, header_constraints, derived = {}, [], set()
    for prefix, constraint in found:
        header_constraints.append(
            {"owner": prefix, "groups": [_describe(constraint, g) for g in constraint.groups]}
        )
        derived |= {
            p + g.origin
            for p in prefixes(model, constraint.owner)
            for g in constraint.groups
            if g.origin
        }
        for group in constraint.groups:
            _check_registered(group.generator)
            tables = group.generator.tables()
            tensors.update(
                {f"{TABLES}{prefix}{group.free}.{name}": table for name, table in tables.items()}
            )
    ours = {
        *tensors,
        *(prefix + group.free for prefix, constraint in found for group in constraint.groups),
    }
    distinct, aliases = _distinct({k: v for k, v in state.items() if k not in derived})
    tensors.update(distinct)
    header = {
        "format": 1,
        "lincon": _version(),
        "constraints": header_constraints,
        "aliases": aliases,
    }
    stored, coded, plenty = _apart(tensors), {}, PLENTY
    for name in sorted(ours) if code else ():
        if made := encode(stored[name], plenty):
            plenty -= excess(stored[name].nbytes, made[0].nbytes)
            stored[name], coded[name] = made
    if coded:
        header["coded"] = coded
    if coded or any(group.steps for _, constraint in found for group in constraint.groups):
        header["format"] = FORMAT
    with whole(path) as temporary:
        save_file(stored, temporary, {"lincon": seal(header, stored)})
    return path.stat().st_size


def load(model: nn.Module, path: str | os.PathLike[str]) -> list[Constraint]:
    """Constrain ``model`` as the file says and fill it, bit for bit.

    Args:
        model: of the architecture that was saved; fresh, or constrained the same way already. With an offset,
            it must hold the same W₀. Values come in the model's own dtypes. Of a model that is sharded over ranks,
            every rank must call `load`, with the file before it.
        path: what `save` wrote.

    Returns:
        The constraints. Raises FileError or TargetError, naming what differs, and leaves the model as it was;
        FileNotFoundError.
    """
    model = unwrapped(model)
    sharded = any(is_shard(tensor) for tensor in model.state_dict().values())
    plan = on_every_rank(lambda: fit(model, path)) if sharded else fit(model, path)
    bound: list[tuple[Constraint, list[Target]]] = []
    try:
        for prefix, chosen in plan.chosen.items():
            constraint = _bind(
                model, prefix, plan.groups[prefix], chosen, plan.state, plan.origins[prefix]
            )
            bound.append((constraint, chosen))
        _fill(model, plan.state)
    except BaseException as error:
        for constraint, chosen in bound:
            unbind(constraint, {name: target.tensor for target in chosen for name in target.names})
        if isinstance(error, KeyError):  # torch's, for a name that is taken
            raise FileError(f"{path} does not fit this {type(model).__name__}: {error}") from None
        raise
    if bound:
        warn_of_stale_optimizers([target.tensor for _, chosen in bound for target in chosen])
    return [constraint for _, constraint in owned(model)]


def _bind(
    model: nn.Module,
    prefix: str,
    groups: list[Group],
    chosen: list[Target],
    state: dict[str, Tensor],
    origins: dict[str, Tensor],
) -> Constraint:
    present = {target.name: target.tensor for target in chosen}
    values, placed = dict(origins), []
    for group in groups:
        members = [present[entry.name] for entry in group.ledger]
        for name in (group.free, group.steps):
            if name is not None:
                stored = state[prefix + name]
                values[name] = stored.to(members[0].device, held_as(stored, members[0].dtype))
        devices = tuple(None if m.device == members[0].device else str(m.device) for m in members)
        placed.append(replace(group, devices=devices if any(devices) else ()))
    return bind(model.get_submodule(prefix.rstrip(".")), placed, chosen, values)


def _fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """load_state_dict with what the file holds; what it does not (W₀) stays."""
    whole = model.state_dict()  # its metadata, versions of the modules, too
    for name, tensor in state.items():
        whole[name] = spread_like(tensor, whole.get(name))
    model.load_state_dict(whole)


def _check_registered(generator: Generator) -> None:
    """That a file could be loaded: the generator and those that it is made of are the registered ones."""
    cls = type(generator)
    inner = getattr(generator, "inner", None)
    if isinstance(inner, Generator):
        _check_registered(inner)
    if registered(cls.name) is not cls:
        raise LinconError(
            f"{cls.__name__} is not the registered generator {cls.name!r}, so the file could not be loaded: "
            "decorate it with @lincon.generators.register."
        )


def _apart(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors on the CPU, no two in one storage."""
    stored: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.is_meta:
            what = (
                "on the meta device"
                if isinstance(tensor, Tensor)
                else f"a {type(tensor).__name__}, not a tensor"
            )
            raise LinconError(f"{name!r} is {what}; it cannot be saved.")
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        stored[name] = plain.clone() if place in places else plain
        places.add(place)
    return stored


def _describe(constraint: Constraint, group: Group) -> dict[str, Any]:
    description: dict[str, Any] = {
        "free": group.free,
        "generator": group.generator.spec(),
        "fingerprint": group.generator.fingerprint(),
        "isometric": group.isometric,
        "ledger": group.ledger.to_json(),
    }
    if group.steps is not None:
        description["steps"] = {"name": group.steps, "size": group.size}
    if group.origin is not None:
        origin = constraint.owner._buffers[group.origin]
        assert origin is not None
        own = group.generator.offset() is not None
        description["origin"] = {
            "name": group.origin,
            "of": "generator" if own else "model",
            "sha256": sha_of(origin),
        }
    return description


def _distinct(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors without those that are another name for an earlier one, and the names of these."""
    first: dict[tuple[Any, ...], str] = {}
    kept, aliases = {}, {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            kept[name] = tensor
            continue
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            kept[name] = tensor
    return kept, aliases


def _version() -> str:
    try:
        return version("lincon-torch")
    except PackageNotFoundError:
        return "unknown"
