"""Model files: the free vectors, the unconstrained tensors, the spec and the ledger, in one safetensors file.

The metadata entry ``lincon`` is JSON (`FORMAT` 1): for each constraint its owner and groups, for each group the name of
its free vector, the generator's spec and fingerprint, the ledger. Its ``sha256`` covers the rest of the JSON and every
tensor. A file is written under a temporary name, synced and renamed; nothing is ever unpickled.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lincon.attach import attach, constraints
from lincon.constraint import Constraint, Group
from lincon.errors import FileError, LinconError
from lincon.ledger import Ledger
from lincon.registry import build
from lincon.tensors import targets

FORMAT = 1
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


def save(model: nn.Module, path: str | os.PathLike[str]) -> int:
    """Write a model: free vectors, unconstrained tensors, spec and ledger (a plain or merged one: all its tensors).

    Returns the size in bytes. The file is written whole or not at all: a temporary name beside ``path``, synced,
    then renamed. Raises LinconError if the folder does not exist.
    """
    found = _owned(model)
    tensors, header_constraints, derived = {}, [], set()
    for prefix, constraint in found:
        header_constraints.append({"owner": prefix, "groups": [_describe(constraint, g) for g in constraint.groups]})
        derived |= {prefix + g.origin for g in constraint.groups if g.origin}
        for group in constraint.groups:
            tables = group.generator.tables()
            tensors.update({f"{_TABLE}{prefix}{group.free}.{name}": table for name, table in tables.items()})
    state, aliases = _distinct({k: v for k, v in model.state_dict().items() if k not in derived})
    tensors.update(state)
    header = {"format": FORMAT, "lincon": _version(), "constraints": header_constraints, "aliases": aliases}
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _whole(Path(path)) as temporary:
        save_file(stored, temporary, {"lincon": seal(header, stored)})
    return os.path.getsize(path)


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
    header = _header(path, metadata["lincon"])
    if metadata["lincon"] != seal(header, tensors):
        raise FileError(f"{path} was altered after it was saved (its SHA-256 differs); get another copy.")
    return Contents(path, header, tensors, size)


def load(model: nn.Module, path: str | os.PathLike[str]) -> list[Constraint]:
    """Constrain ``model`` as the file says and fill it, bit for bit.

    Args:
        model: of the architecture that was saved; fresh, or constrained the same way already. With an offset,
            it must hold the same W₀.
        path: what `save` wrote.

    Returns:
        The constraints. Raises FileError or TargetError, naming what differs, and leaves the model as it was.
    """
    contents = inspect(path)
    where = f"{path} does not fit this {type(model).__name__}"
    groups = _rebuild_groups(contents)
    existing = dict(_owned(model))
    if existing and not _same(existing, groups):
        raise FileError(f"{where}: the model is constrained already, in another way; load into a fresh one.")
    plans = {} if existing else {p: _check_ledger(model, p, gs, where) for p, gs in groups.items()}
    state = {k: v for k, v in contents.tensors.items() if not k.startswith(_TABLE)}
    state.update({name: state[first] for name, first in contents.header.get("aliases", {}).items()})
    _check_state(model, state, groups, bool(existing), where)
    origins = {} if existing else {p: _origins(model, p, gs, contents, where) for p, gs in groups.items()}
    for prefix, chosen in plans.items():
        owner = model.get_submodule(prefix.rstrip("."))
        like = chosen[0].tensor
        frees = {g.free: state[prefix + g.free].to(like.device, like.dtype) for g in groups[prefix]}
        attach(owner, groups[prefix], chosen, {**frees, **origins[prefix]})
    kept = {k: v for k, v in model.state_dict().items() if k not in state}
    model.load_state_dict({**kept, **state})
    return [constraint for _, constraint in _owned(model)]


def _owned(model: nn.Module) -> list[tuple[str, Constraint]]:
    """(prefix of the owner, constraint) of all constraints in a model."""
    found = {id(c.owner): [] for c in constraints(model)}  # type: dict[int, list[Constraint]]
    for constraint in constraints(model):
        found[id(constraint.owner)].append(constraint)
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
    if group.origin is not None:
        origin = constraint.owner._parameters[group.origin]
        assert origin is not None
        own = group.generator.offset() is not None
        description["origin"] = {
            "name": group.origin,
            "of": "generator" if own else "model",
            "sha256": _sha(origin),
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
            generator = build(described["generator"], tables)
            if generator.fingerprint() != described["fingerprint"]:
                raise FileError(
                    f"{contents.path}: this lincon makes another G of {generator!r} than the one that saved the file; "
                    f"install lincon {contents.header['lincon']}."
                )
            ledger = Ledger.from_json(described["ledger"])
            free = contents.tensors.get(prefix + described["free"])
            if free is None or free.shape != (generator.dof,) or ledger.rows != generator.rows:
                raise FileError(f"{contents.path}: {described['free']!r}, its ledger and its generator do not agree.")
            origin = described.get("origin", {}).get("name")
            group = Group(described["free"], generator, ledger, bool(described["isometric"]), origin)
            groups.setdefault(prefix, []).append(group)
    return groups


def _same(existing: dict[str, Constraint], groups: dict[str, list[Group]]) -> bool:
    def essence(group: Group) -> tuple[Any, ...]:
        return group.free, group.generator, group.ledger, group.isometric, group.origin

    mine = {p: [essence(g) for g in c.groups] for p, c in existing.items()}
    return mine == {p: [essence(g) for g in gs] for p, gs in groups.items()}


def _check_ledger(model: nn.Module, prefix: str, groups: list[Group], where: str) -> list[Any]:
    """The model's tensors that the ledger names; refused if one is missing, has another shape, or other ties."""
    try:
        owner = model.get_submodule(prefix.rstrip("."))
    except AttributeError:
        raise FileError(f"{where}: it has no module {prefix.rstrip('.')!r}.") from None
    present = {name: target for target in targets(owner) for name in target.names}
    chosen = []
    for entry in (entry for group in groups for entry in group.ledger):
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


def _check_state(
    model: nn.Module, state: dict[str, Tensor], groups: dict[str, list[Group]], attached: bool, where: str
) -> None:
    """That what is stored besides the free vectors is just what the model has besides the generated tensors."""
    free = {p + g.free for p, gs in groups.items() for g in gs}
    generated = {p + n for p, gs in groups.items() for g in gs for e in g.ledger for n in e.names}
    origins = {p + g.origin for p, gs in groups.items() for g in gs if g.origin}
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items() if k not in generated | origins | free}
    stored = {k: tuple(v.shape) for k, v in state.items() if k not in free}
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            raise FileError(f"{where}: {name!r} is {stored.get(name)} in the file and {wanted.get(name)} here.")


def _origins(model: nn.Module, prefix: str, groups: list[Group], contents: Contents, where: str) -> dict[str, Tensor]:
    """W₀ of each group that has one: the generator's, or the model's own weights if they are those of the file."""
    present = {name: t.tensor for t in targets(model.get_submodule(prefix.rstrip("."))) for name in t.names}
    described = {g["free"]: g.get("origin", {}) for g in contents.groups}
    found = {}
    for group in groups:
        if group.origin is None:
            continue
        like = present[group.ledger.entries[0].name].detach()
        own = group.generator.offset()
        pieces = [present[e.name].detach().reshape(-1) for e in group.ledger]
        origin = torch.cat(pieces) if own is None else own.to(like)
        if own is None and _sha(origin) != described[group.free].get("sha256"):
            raise FileError(f"{where}: the file's W₀ differs from the weights this model has; give it the same base.")
        found[group.origin] = origin
    return found


def _distinct(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors without those that are another name for an earlier one, and the names of these."""
    first: dict[tuple[Any, ...], str] = {}
    kept, aliases = {}, {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            kept[name] = tensor
    return kept, aliases


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
        newer = int(header["format"]) > FORMAT
        constraints_ = header["constraints"]
        for constraint in constraints_:
            for group in constraint["groups"]:
                Ledger.from_json(group["ledger"])
                group["generator"]["dof"], group["fingerprint"], group["free"], group["isometric"]
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: its description is damaged ({error!r}); get another copy.") from None
    if newer:
        raise FileError(
            f"{path} has format {header['format']} and this lincon reads up to {FORMAT}: "
            f"install lincon {header.get('lincon', '(newer)')} or later."
        )
    return header


def seal(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The JSON of a header with the SHA-256 of itself and of the tensors as its last entry."""
    header = {k: v for k, v in header.items() if k != "sha256"}
    sha = hashlib.sha256(json.dumps(header, separators=(",", ":")).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(_bytes(tensor))
    return json.dumps({**header, "sha256": sha.hexdigest()}, separators=(",", ":"))


def _sha(tensor: Tensor) -> str:
    return hashlib.sha256(_bytes(tensor.detach().cpu())).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _version() -> str:
    try:
        return version("lincon-torch")
    except PackageNotFoundError:
        return "unknown"


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that becomes it at the end, or nothing does."""
    if not path.parent.is_dir():
        raise LinconError(f"{path.parent} is not a folder; make it first.")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
