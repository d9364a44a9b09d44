"""The description in a model file: JSON that is checked value by value, and its checksum."""

import hashlib
import json
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lincon.errors import FileError

FORMAT = 2

DIMENSIONS = 64
"""Of a tensor, at most, as torch has it: the product of any number of sizes would take for ever."""

_GENERATOR = {"name": str, "version": int, "rows": int, "dof": int, "seed": int, "options": dict}
_GROUP = {
    "free": str,
    "generator": _GENERATOR,
    "fingerprint": str,
    "isometric": bool,
    "ledger": [list],
}
_FURTHER = {
    "origin": {"name": str, "of": str, "sha256": str},
    "steps": {"name": str, "size": int},
}
"""What a group may have besides."""
_HEADER = {
    "format": int,
    "lincon": str,
    "constraints": [{"owner": str, "groups": [_GROUP]}],
    "aliases": {str: str},
}
_CODED = {str: dict}


def read(path: Path, text: str) -> dict[str, Any]:
    """The description of the file at ``path``.

    Raises FileError for one that is damaged or of a later version; that its checksum is right is not checked here.
    """
    try:
        header = json.loads(text)
        if (
            isinstance(header, dict)
            and isinstance(header.get("format"), int)
            and header["format"] > FORMAT
        ):
            raise FileError(
                f"{path} has format {header['format']} and this lincon reads up to {FORMAT}: "
                f"install lincon {header.get('lincon', '(newer)')} or later."
            )
        _check({"aliases": {}, **header}, _HEADER, "")
        _check(header.get("coded", {}), _CODED, "coded.")
        taken: set[tuple[str, str]] = set()
        for constraint in header["constraints"]:
            for group in constraint["groups"]:
                for name in _names(group):
                    if (constraint["owner"], name) in taken:
                        raise ValueError(f"{name!r} is there twice")
                    taken.add((constraint["owner"], name))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"{path}: its description is damaged ({error}); get another copy."
        ) from None
    return dict(header)


def _check(value: Any, kind: Any, place: str) -> None:
    """Raise ValueError unless a value is of a type; a dictionary or list, as those in it are."""
    if isinstance(kind, dict):
        _check(value, dict, place)
        for key, inner in kind.items():
            for name in value if key is str else (key,):
                if name not in value:
                    raise ValueError(f"there is no {place}{name!r}")
                _check(value[name], inner, f"{place}{name}.")
    elif isinstance(kind, list):
        _check(value, list, place)
        for item in value:
            _check(item, kind[0], place)
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{place.rstrip('.')} is no {kind.__name__}: {str(value)[:80]!r}")


def _names(group: dict[str, Any]) -> list[str]:
    """What a group has the owner call its own: vectors, buffers, generated tensors. Raises ValueError for no group."""
    names = [group["free"]]
    for key, kind in _FURTHER.items():
        if key in group:
            _check(group[key], kind, f"{key}.")
            names.append(group[key]["name"])
    for name in names:
        if not name or "." in name:
            raise ValueError(f"{name!r} is no name of a free vector or buffer")
    for entry in group["ledger"]:
        tied, shape, scale = entry
        _check(tied, [str], "ledger")
        _check(shape, [int], "ledger")
        sizes = len(shape) <= DIMENSIONS and min(shape, default=1) >= 1
        if not tied or not sizes or isinstance(scale, bool) or not isfinite(scale):
            raise ValueError(f"{str(entry)[:80]} is no entry of a ledger")
        names += tied
    return names


def seal(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The JSON of a header with the SHA-256 of itself and of the tensors as its last entry."""
    header = {k: v for k, v in header.items() if k != "sha256"}
    sha = hashlib.sha256(json.dumps(header, separators=(",", ":")).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(_bytes(tensor))
    return json.dumps({**header, "sha256": sha.hexdigest()}, separators=(",", ":"))


def sha_of(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    return hashlib.sha256(_bytes(tensor.detach().cpu())).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
