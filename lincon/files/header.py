"""The header of a model file: JSON that is checked value by value, and its checksum."""

import hashlib
import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from lincon.errors import FileError
from lincon.files.description import GroupRecord, bytes_of, check

FORMAT = 2
"""The newest format. Files without coded or quantised tensors have format 1, for older versions."""


class ConstraintJson(TypedDict):
    """A constraint: the prefix of its owner's names in the model, and its groups."""

    owner: str
    groups: list[dict[str, Any]]


class HeaderJson(TypedDict):
    """The metadata entry ``lincon`` of a file.

    It holds the format, the version of lincon that wrote the file, the constraints, the aliases
    (other names of a stored tensor), and how each entropy-coded tensor is coded.
    """

    format: int
    lincon: str
    constraints: list[ConstraintJson]
    aliases: NotRequired[dict[str, str]]
    coded: NotRequired[dict[str, dict[str, Any]]]
    sha256: NotRequired[str]


def read(path: Path, text: str) -> tuple[dict[str, Any], dict[str, list[GroupRecord]]]:
    """The header of the file at ``path``, and the records of its groups by owner.

    `seal` computes the checksum, which is not checked here.

    Raises:
        FileError: the header is damaged or has a newer format.
    """
    try:
        header = json.loads(text)
        version = header.get("format") if isinstance(header, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise FileError(
                f"{path} has format {version} and this lincon reads up to {FORMAT}: "
                f"install lincon {header.get('lincon', '(newer)')} or later."
            )
        check(header, HeaderJson, "")
        return dict(header), _records(header)
    except FileError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FileError(
            f"{path}: its description is damaged ({error}); get another copy."
        ) from None


def _records(header: HeaderJson) -> dict[str, list[GroupRecord]]:
    """The records by owner. Raises ValueError if two groups of an owner take the same name."""
    records: dict[str, list[GroupRecord]] = {}
    taken: set[tuple[str, str]] = set()
    for constraint in header["constraints"]:
        owner = constraint["owner"]
        for description in constraint["groups"]:
            record = GroupRecord.read(description)
            for name in record.names:
                if (owner, name) in taken:
                    raise ValueError(f"{name!r} occurs twice")
                taken.add((owner, name))
            records.setdefault(owner, []).append(record)
    return records


def seal(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """The JSON of a header. Its last entry is the SHA-256 of the other entries and the tensors."""
    header = {name: value for name, value in header.items() if name != "sha256"}
    sha = hashlib.sha256(json.dumps(header, separators=(",", ":")).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(bytes_of(tensor))
    return json.dumps({**header, "sha256": sha.hexdigest()}, separators=(",", ":"))
