"""Saving a model file: `save`.

A model file is a safetensors file that holds the free vectors, the unconstrained tensors, the spec
and the ledger. Its metadata entry ``lincon`` is JSON (of the lowest format that can say
everything, see `_format`). The JSON describes the owner and the groups of each constraint (see `GroupRecord`), and
how each entropy-coded tensor is coded. Its ``sha256`` covers the rest of the JSON and every tensor
as it is stored. A file is written under a temporary name, synced and renamed. Nothing is ever
unpickled.
"""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from lincon.attaching.binding import check_complete, unwrapped
from lincon.attaching.constraint import Constraint, owned
from lincon.attaching.state import prefixes
from lincon.errors import LinconError
from lincon.files.atomic import atomic_write
from lincon.files.base import described
from lincon.files.coding import BUDGET, drawn, encode
from lincon.files.description import GroupRecord, tables_prefix
from lincon.files.entry import head_of, without_entries
from lincon.files.header import FORMAT, pack, seal
from lincon.files.trained import trained_names
from lincon.generator import Generator
from lincon.maps.registry import registered
from lincon.processes.shards import is_shard, on_first, on_first_rank


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    only: str | None = None,
    code: bool = True,
) -> int:
    """Write a model: free vectors, unconstrained tensors, spec and ledger.

    The file is written whole or not at all: under a temporary name beside ``path``, synced, then
    renamed. For a plain or merged model it holds all tensors.

    Args:
        model: a constrained or plain model. If DDP or torch.compile wraps it, the module inside is
            saved. If it is sharded over ranks, every rank must call `save`, which gathers it; the
            first rank writes.
        path: the path of the file.
        only: "trained" leaves out all that was not trained, for a small file that `load` reads into
            a model with the same weights otherwise. It holds the free vectors, the parameters that
            require a gradient, and the buffers beside them (running statistics of a norm), and a
            checksum of all others.
        code: whether to entropy-code quantised free vectors and tables of small integers, which is
            lossless.

    Returns:
        The size of the file in bytes.

    Raises:
        TargetError: the model is a part of a constrained model without its free vector, or a module
            was replaced after it was constrained.
        LinconError: ``only`` is unknown, a generator is not registered, extra state is not a tensor, a tensor is on the
            meta device, or the folder does not exist.
        FileError: the file could not be written.

    >>> import lincon, tempfile
    >>> model = nn.Linear(100, 10)
    >>> constraint = lincon.constrain(model, "ring", dof=50)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lincon.save(model, f"{folder}/model.safetensors") < 1200
    True
    """
    if only not in (None, "trained"):
        raise LinconError(f"only={only!r}; give 'trained', or None for the whole model.")
    model = unwrapped(model)
    check_complete(model)
    state = model.state_dict(keep_vars=True)  # a tensor with two names is one object
    if not any(is_shard(tensor) for tensor in state.values()):
        return _write(model, state, Path(path), only, code)
    by_identity = {id(tensor): tensor for tensor in state.values()}
    gathered = {number: on_first(tensor) for number, tensor in by_identity.items()}
    complete = {name: gathered[id(tensor)] for name, tensor in state.items()}
    return int(on_first_rank(lambda: _write(model, complete, Path(path), only, code)))


def _write(
    model: nn.Module, state: dict[str, Any], path: Path, only: str | None, code: bool
) -> int:
    """Write the file of a model whose state_dict is ``state``, and return its size in bytes."""
    placed = owned(model)
    derived = _derived(model, placed)
    # The tensors of an adapter mean nothing without its base, which only `lincon.load` compares.
    heads = _heads(model, placed) if only is None else {}
    own = {k: v for k, v in without_entries(state).items() if k not in derived}
    whole = {**own, **heads}
    kept = set(whole) if only is None else trained_names(model)
    distinct, aliases = _distinct({k: v for k, v in whole.items() if k in kept})
    tables = _tables(placed)
    stored = _separate({**tables, **distinct})
    header: dict[str, Any] = {
        "format": 1,
        "lincon": _installed_version(),
        "constraints": _records(placed),
        "aliases": aliases,
    }
    coded = _encode(stored, sorted({*tables, *_free_names(placed)})) if code else {}
    if coded:
        header["coded"] = coded
    if only is not None:
        header["base"] = described(_separate({k: v for k, v in whole.items() if k not in kept}))
    header["format"] = _format(header, placed)
    with atomic_write(path) as temporary:
        save_file(stored, temporary, {"lincon": pack(seal(header, stored))})
    return path.stat().st_size


def _format(header: dict[str, Any], placed: list[tuple[str, Constraint]]) -> int:
    """The lowest format that can say all of a header."""
    groups = [group for _, constraint in placed for group in constraint.groups]
    if "base" in header or any(group.drawn for group in groups):
        return FORMAT
    return 2 if "coded" in header or any(group.steps for group in groups) else 1


def _heads(model: nn.Module, placed: list[tuple[str, Constraint]]) -> dict[str, Tensor]:
    """What says to readers of the tensors alone of what G they are, in place of the entries."""
    heads = {}
    for _, constraint in placed:
        own = {vector.group.entry: head_of(vector) for vector in constraint.vectors}
        for prefix in prefixes(model, constraint.owner):
            # Copies: one tensor of two names would be an alias in the header.
            heads.update({prefix + name: head.clone() for name, head in own.items()})
    return heads


def _records(placed: list[tuple[str, Constraint]]) -> list[dict[str, Any]]:
    """Every owner with the descriptions of its groups."""
    records = []
    for prefix, constraint in placed:
        groups = [GroupRecord.of(vector).to_json() for vector in constraint.vectors]
        records.append({"owner": prefix, "groups": groups})
    return records


def _derived(model: nn.Module, placed: list[tuple[str, Constraint]]) -> set[str]:
    """The names of W₀ in the state_dict, which the file does not hold."""
    derived = set()
    for _, constraint in placed:
        origins = [group.origin for group in constraint.groups if group.origin]
        for prefix in prefixes(model, constraint.owner):
            derived |= {prefix + origin for origin in origins}
    return derived


def _free_names(placed: list[tuple[str, Constraint]]) -> set[str]:
    return {prefix + name for prefix, constraint in placed for name in constraint.free}


def _tables(placed: list[tuple[str, Constraint]]) -> dict[str, Tensor]:
    """The tables of the generators, which no seed can rebuild, by key in the file."""
    tables = {}
    for prefix, constraint in placed:
        for group in constraint.groups:
            _check_registered(group.generator)
            start = tables_prefix(prefix, group.free)
            own = group.generator.tables()
            tables.update({start + name: table for name, table in own.items()})
    return tables


def _encode(stored: dict[str, Tensor], names: list[str]) -> dict[str, dict[str, Any]]:
    """Replace tensors by shorter coded ones, and return how each is coded."""
    coded, budget = {}, BUDGET
    for name in names:
        code = encode(stored[name], budget)
        if code is not None:
            budget -= drawn(stored[name].nbytes, code[0].nbytes)
            stored[name], coded[name] = code
    return coded


def _check_registered(generator: Generator) -> None:
    """Raise LinconError unless a generator and those inside it are registered.

    A file with another generator could not be loaded.
    """
    cls = type(generator)
    inner = getattr(generator, "inner", None)
    if isinstance(inner, Generator):
        _check_registered(inner)
    if registered(cls.name) is not cls:
        raise LinconError(
            f"{cls.__name__} is not the registered generator {cls.name!r}, so the file could not "
            "be loaded: decorate it with @lincon.generators.register."
        )


def _separate(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in its own storage."""
    stored: dict[str, Tensor] = {}
    addresses = set()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise LinconError(f"{name!r} is a {kind}, not a tensor; it cannot be saved.")
        if tensor.is_meta:
            raise LinconError(f"{name!r} is on the meta device; it cannot be saved.")
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        address = plain.untyped_storage().data_ptr()
        stored[name] = plain.clone() if address in addresses else plain
        addresses.add(address)
    return stored


def _distinct(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors without aliases, and the first name of each alias."""
    first: dict[tuple[Any, ...], str] = {}
    distinct, aliases = {}, {}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and tensor.numel():
            place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
            if place in first:
                aliases[name] = first[place]
                continue
            first[place] = name
        distinct[name] = tensor
    return distinct, aliases


def _installed_version() -> str:
    try:
        return version("lincon-torch")
    except PackageNotFoundError:
        return "unknown"
