"""Model files: the free vectors, the unconstrained tensors, the spec and the ledger, in one safetensors file.

The metadata entry ``lincon`` is JSON (`FORMAT` 2; 1 where nothing is coded or quantised): for each constraint its owner
and groups, for each group the name of its free vector, the generator's spec and fingerprint, the ledger; for each
entropy-coded tensor how. Its ``sha256`` covers the rest of the JSON and every tensor as it is stored. A file is written
under a temporary name, synced and renamed; nothing is ever unpickled.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lincon.binding import bind, check_whole, unbind, unwrapped
from lincon.coding import decode, encode
from lincon.constraint import Constraint, Group, constraints
from lincon.errors import FileError, LinconError
from lincon.generator import Generator
from lincon.header import FORMAT, read, seal, sha_of
from lincon.ledger import Ledger
from lincon.registry import build, registered
from lincon.shards import check_unsharded, gathered, is_shard, on_every_rank, on_first_rank, spread_like
from lincon.tensors import Target, targets

_TABLE = "lincon.tables."


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    ``header``: its description (JSON); ``tensors``: everything stored, by key; ``bytes``: the size of the file.
    """

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Tensor]
    bytes: int

    @property
    def groups(self) -> list[dict[str, Any]]:
        return [group for constraint in self.header["constraints"] for group in constraint["groups"]]

    @property
    def dof(self) -> int:
        """Degrees of freedom: the free vectors alone."""
        return sum(group["generator"]["dof"] for group in self.groups)

    @property
    def rows(self) -> int:
        return sum(group["generator"]["rows"] for group in self.groups)

    @property
    def total(self) -> int:
        """All numbers that are stored: free vectors and unconstrained tensors, without the tables of G."""
        return sum(t.numel() for name, t in self.tensors.items() if not name.startswith(_TABLE))

    def __str__(self) -> str:
        lines = [
            f"{self.path}: lincon {self.header['lincon']}, format {self.header['format']}, {self.bytes:,} bytes",
            f"dof {self.dof:,} -> {self.rows:,} generated weights; {self.total:,} numbers stored",
        ]
        for group in self.groups:
            spec = group["generator"]
            settings = {"rows": spec["rows"], "dof": spec["dof"], "seed": spec["seed"], **spec["options"]}
            lines.append(f"  {group['free']}: {spec['name']}({', '.join(f'{k}={v!r}' for k, v in settings.items())})")
            for entry in Ledger.from_json(group["ledger"]):
                shape = " x ".join(map(str, entry.shape))
                tied = f" (tied: {', '.join(entry.names[1:])})" if entry.names[1:] else ""
                lines.append(f"    {entry.start:>12,}  {entry.name}  {shape}  scale {entry.scale:.4g}{tied}")
        return "\n".join(lines)


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
    check_whole(model)
    state = model.state_dict()
    if not any(is_shard(tensor) for tensor in state.values()):
        return _write(model, state, Path(path), code)
    whole_state = {name: gathered(tensor) for name, tensor in state.items()}
    return int(on_first_rank(lambda: _write(model, whole_state, Path(path), code)))


def _write(model: nn.Module, state: dict[str, Any], path: Path, code: bool) -> int:
    """Write the file of a model whose state_dict is ``state``; its size."""
    found = _owned(model)
    tensors, header_constraints, derived = {}, [], set()
    for prefix, constraint in found:
        header_constraints.append({"owner": prefix, "groups": [_describe(constraint, g) for g in constraint.groups]})
        derived |= {prefix + g.origin for g in constraint.groups if g.origin}
        for group in constraint.groups:
            _check_registered(group.generator)
            tables = group.generator.tables()
            tensors.update({f"{_TABLE}{prefix}{group.free}.{name}": table for name, table in tables.items()})
    ours = {*tensors, *(prefix + group.free for prefix, constraint in found for group in constraint.groups)}
    distinct, aliases = _distinct({k: v for k, v in state.items() if k not in derived})
    tensors.update(distinct)
    header = {"format": 1, "lincon": _version(), "constraints": header_constraints, "aliases": aliases}
    stored = _apart(tensors)
    if coded := {name: made for name in sorted(ours) if code and (made := encode(stored[name]))}:
        stored |= {name: tensor for name, (tensor, _) in coded.items()}
        header["coded"] = {name: described for name, (_, described) in coded.items()}
    if coded or any(group.steps for _, constraint in found for group in constraint.groups):
        header["format"] = FORMAT
    with whole(path) as temporary:
        save_file(stored, temporary, {"lincon": seal(header, stored)})
    return path.stat().st_size


def inspect(path: str | os.PathLike[str]) -> Contents:
    """Read a file and check that it is whole and unaltered; ``str()`` of the result is a readable report.

    Raises FileError, naming the file, what is wrong, and what to do; FileNotFoundError.
    """
    path = Path(path)
    size = path.stat().st_size
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is not a whole safetensors file ({error}); copy or save it again.") from None
    if "lincon" not in metadata:
        raise FileError(f"{path} was not written by lincon; load it with safetensors.torch.load_file.")
    header = read(path, metadata["lincon"])
    if metadata["lincon"] != seal(header, tensors):
        raise FileError(f"{path} was altered after it was saved (its SHA-256 differs); get another copy.")
    return Contents(path, header, _decoded(path, header, tensors), size)


def _decoded(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        return tensors | {name: decode(tensors[name], how) for name, how in header.get("coded", {}).items()}
    except (FileError, KeyError, AttributeError) as error:
        raise FileError(f"{path}: {error}") from None


def load(model: nn.Module, path: str | os.PathLike[str]) -> list[Constraint]:
    """Constrain ``model`` as the file says and fill it, bit for bit.

    Args:
        model: of the architecture that was saved; fresh, or constrained the same way already. With an offset,
            it must hold the same W₀. Values come in the model's own dtypes. Of a model that is sharded over ranks,
            every rank must call `load`, with the file before it.
        path: what `save` wrote.

    Returns:
        The constraints. Raises FileError or TargetError, naming what differs, and leaves the model as it was.
    """
    model = unwrapped(model)
    sharded = any(is_shard(tensor) for tensor in model.state_dict().values())
    plan = on_every_rank(lambda: _plan(model, path)) if sharded else _plan(model, path)
    bound: list[tuple[Constraint, list[Target]]] = []
    try:
        for prefix, chosen in plan.chosen.items():
            constraint = _bind(model, prefix, plan.groups[prefix], chosen, plan.state, plan.origins[prefix])
            bound.append((constraint, chosen))
        _fill(model, plan.state)
    except BaseException as error:
        for constraint, chosen in bound:
            unbind(constraint, {name: target.tensor for target in chosen for name in target.names})
        if isinstance(error, KeyError):  # torch's, for a name that is taken
            raise FileError(f"{path} does not fit this {type(model).__name__}: {error}") from None
        raise
    return [constraint for _, constraint in _owned(model)]


@dataclass(frozen=True)
class _Plan:
    """What loading will do: by prefix of the owner, groups, the tensors to be constrained (none, where they are), and
    W₀; and the tensors that are filled in.
    """

    groups: dict[str, list[Group]]
    chosen: dict[str, list[Target]]
    origins: dict[str, dict[str, Tensor]]
    state: dict[str, Tensor]


def _plan(model: nn.Module, path: str | os.PathLike[str]) -> _Plan:
    """Check that a file fits the model; nothing is changed."""
    contents = inspect(path)
    where = f"{path} does not fit this {type(model).__name__}"
    existing: dict[str, list[Group]] = {}
    for prefix, constraint in _owned(model):
        existing.setdefault(prefix, []).extend(constraint.groups)
    ledgers = _ledgers(contents)  # before any G is made: its size is the model's then
    chosen = {} if existing else {p: _check_ledger(model, p, each, where) for p, each in ledgers.items()}
    other = f"{where}: the model is constrained already, in another way; load into a fresh one."
    if existing and {p: sum(g.ledger.rows for g in gs) for p, gs in existing.items()} != {
        p: sum(ledger.rows for ledger in each) for p, each in ledgers.items()
    }:
        raise FileError(other)
    groups = _rebuild_groups(contents)
    if existing and not _same(existing, groups):
        raise FileError(other)
    state = {k: v for k, v in contents.tensors.items() if not k.startswith(_TABLE)}
    aliases = contents.header.get("aliases", {})
    if strange := [first for first in aliases.values() if first not in state]:
        raise FileError(f"{path}: {strange[0]!r} is not among its tensors; get another copy.")
    state.update({name: state[first] for name, first in aliases.items()})
    _check_state(model, state, groups, where)
    origins = {p: _origins(model, p, gs, contents, where) for p, gs in groups.items()}
    return _Plan(groups, chosen, origins, state)


def _ledgers(contents: Contents) -> dict[str, list[Ledger]]:
    """The ledgers of each owner."""
    found: dict[str, list[Ledger]] = {}
    for constraint in contents.header["constraints"]:
        found.setdefault(constraint["owner"], []).extend(Ledger.from_json(g["ledger"]) for g in constraint["groups"])
    return found


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
                dtype = members[0].dtype if stored.is_floating_point() else stored.dtype
                _check_kind(prefix + name, stored, dtype, f"This {type(model).__name__} is of another type")
                values[name] = stored.to(members[0].device, dtype)
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
            what = "on the meta device" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}, not a tensor"
            raise LinconError(f"{name!r} is {what}; it cannot be saved.")
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        stored[name] = plain.clone() if place in places else plain
        places.add(place)
    return stored


def _owned(model: nn.Module) -> list[tuple[str, Constraint]]:
    """(prefix of the owner, constraint) of all constraints in a model."""
    found: dict[int, list[Constraint]] = {}
    for constraint in constraints(model):
        found.setdefault(id(constraint.owner), []).append(constraint)
    return [
        (f"{name}." if name else "", constraint)
        for name, module in model.named_modules()
        for constraint in found.get(id(module), [])
    ]


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


def _rebuild_groups(contents: Contents) -> dict[str, list[Group]]:
    """The groups of each owner; every generator is checked against its fingerprint."""
    groups: dict[str, list[Group]] = {}
    for constraint in contents.header["constraints"]:
        prefix = constraint["owner"]
        for described in constraint["groups"]:
            start = f"{_TABLE}{prefix}{described['free']}."
            tables = {k[len(start) :]: v for k, v in contents.tensors.items() if k.startswith(start)}
            ledger = Ledger.from_json(described["ledger"])
            free, spec = contents.tensors.get(prefix + described["free"]), described["generator"]
            if free is None or free.shape != (spec["dof"],) or ledger.rows != spec["rows"]:
                raise FileError(f"{contents.path}: {described['free']!r}, its ledger and its generator do not agree.")
            try:
                generator = build(spec, tables)
                fingerprint = generator.fingerprint()
            except Exception as error:  # whatever a generator makes of options that are none
                said = " ".join(str(error).split())
                raise FileError(f"{contents.path}: {spec['name']!r} cannot be made ({said}).") from None
            if fingerprint != described["fingerprint"]:
                raise FileError(
                    f"{contents.path}: this lincon makes another G of {generator!r} than the one that saved the file; "
                    f"install lincon {contents.header['lincon']}."
                )
            origin = described.get("origin", {}).get("name")
            group = Group(described["free"], generator, ledger, bool(described["isometric"]), origin)
            groups.setdefault(prefix, []).append(_with_steps(group, described.get("steps"), contents, prefix))
    return groups


def _with_steps(group: Group, described: dict[str, Any] | None, contents: Contents, prefix: str) -> Group:
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
        0 < size <= max(1, len(free)) and free.dtype == torch.int8 and steps is not None and steps.is_floating_point()
    )
    if not fits or steps is None or steps.shape != (-(-len(free) // size),):
        raise FileError(f"{contents.path}: {group.free!r} and the steps of its integers do not agree.")
    return replace(group, steps=name, size=size)


def _same(existing: dict[str, list[Group]], groups: dict[str, list[Group]]) -> bool:
    def essence(gs: list[Group]) -> list[tuple[Any, ...]]:
        return [
            (g.free, g.generator, g.ledger, g.isometric, g.origin, g.steps, g.size)
            for g in sorted(gs, key=lambda g: g.free)
        ]

    return {p: essence(gs) for p, gs in existing.items()} == {p: essence(gs) for p, gs in groups.items()}


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
            raise FileError(f"{where}: it has no tensor {prefix + entry.name!r} (renamed, or another architecture).")
        if tuple(target.tensor.shape) != entry.shape:
            raise FileError(
                f"{where}: {prefix + entry.name!r} is {entry.shape} in the file and {tuple(target.tensor.shape)} here."
            )
        if set(target.names) != set(entry.names):
            raise FileError(f"{where}: {entry.names} are one tensor in the file, {target.names} are one here.")
        chosen.append(target)
    return chosen


def _check_state(model: nn.Module, state: dict[str, Tensor], groups: dict[str, list[Group]], where: str) -> None:
    """That what is stored besides the free vectors is just what the model has besides the generated tensors."""
    under = {p: _prefixes(model, p) for p in groups}
    free = {p + n for first, gs in groups.items() for p in under[first] for g in gs for n in (g.free, g.steps) if n}
    generated = {
        p + n for first, gs in groups.items() for p in under[first] for g in gs for e in g.ledger for n in e.names
    }
    origins = {p + g.origin for first, gs in groups.items() for p in under[first] for g in gs if g.origin}
    present = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    wanted = {k: tuple(v.shape) for k, v in present.items() if k not in generated | origins | free}
    stored = {k: tuple(v.shape) for k, v in state.items() if k not in free}
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            raise FileError(f"{where}: {name!r} is {stored.get(name)} in the file and {wanted.get(name)} here.")
        _check_kind(name, state[name], present[name].dtype, where)


def _check_kind(name: str, stored: Tensor, dtype: torch.dtype, where: str) -> None:
    """That the model's type can hold what is stored: as finite, and of the same kind (complex, real, integer, bool)."""
    kinds = [(t.is_complex, t.is_floating_point, t == torch.bool) for t in (stored.dtype, dtype)]
    if kinds[0] != kinds[1]:
        raise FileError(f"{where}: {name!r} is {stored.dtype} in the file and {dtype} here.")
    if stored.dtype != dtype and bool((stored.isfinite() & ~stored.to(dtype).isfinite()).any()):
        raise FileError(f"{where}: {name!r} has values in the file that {dtype}, which it is here, cannot hold.")


def _prefixes(model: nn.Module, first: str) -> list[str]:
    """All prefixes of the owner that is called ``first``: it may be in the model more than once."""
    owner = model.get_submodule(first.rstrip("."))
    return [f"{name}." if name else "" for name, m in model.named_modules(remove_duplicate=False) if m is owner]


def _origins(model: nn.Module, prefix: str, groups: list[Group], contents: Contents, where: str) -> dict[str, Tensor]:
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


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that, synced, becomes it at the end; or nothing does, and FileError says why."""
    if not path.parent.is_dir():
        raise LinconError(f"{path.parent} is not a folder; make it first.")
    if path.is_dir():
        raise LinconError(f"{path} is a folder; give the name of a file.")
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")  # as `remove_partial` knows them
    try:
        temporary.touch()
        mode = (path if path.exists() else temporary).stat().st_mode  # safetensors' own would be for the owner alone
        yield temporary
        temporary.chmod(stat.S_IMODE(mode))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError | SafetensorError):
            why = getattr(error, "strerror", None) or error
            raise FileError(f"{path} could not be written ({why}); what was there before is as it was.") from error
        raise


def remove_partial(folder: Path) -> None:
    """Remove what writes that were killed have left in a folder to which nobody writes at present."""
    for temporary in folder.glob(".*." + 32 * "[0-9a-f]"):
        temporary.unlink(missing_ok=True)
