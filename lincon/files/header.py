"""The header of a model file: JSON that is checked value by value, and its checksum."""

import hashlib
import json
import zlib
from base64 import b85decode, b85encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from torch import Tensor

from lincon.errors import FileError
from lincon.files.base import BaseJson
from lincon.files.coding import inflated
from lincon.files.description import GroupRecord, bytes_of, check

FORMAT = 3
"""The newest format: models with a drawn W₀, and adapters, which hold what was trained alone.

Coded and quantised tensors need format 2; all others have format 1, for older versions."""


LONGEST = 1 << 26
"""The most bytes of a header that is inflated (64 MiB): some hundred thousand tensors."""


class ConstraintJson(TypedDict):
    """A constraint: the prefix of its owner's names in the model, and its groups."""

    owner: str
    groups: list[dict[str, Any]]


class HeaderJson(TypedDict):
    """The metadata entry ``lincon`` of a file.

    It holds the format, the version of lincon that wrote the file, the constraints, the aliases
    (other names of a stored tensor), how each entropy-coded tensor is coded, and the base of an
    adapter. From format 3 on the entry is deflated, see `pack`.
    """

    format: int
    lincon: str
    constraints: list[ConstraintJson]
    aliases: NotRequired[dict[str, str]]
    coded: NotRequired[dict[str, dict[str, Any]]]
    base: NotRequired[BaseJson]
    sha256: NotRequired[str]


def read(path: Path, text: str) -> tuple[dict[str, Any], dict[str, list[GroupRecord]]]:
    """The header of the file at ``path``, and the records of its groups by owner.

    `seal` computes the checksum, which is not checked here.

    Raises:
        FileError: the header is damaged or has a newer format.
    """
    with _reading(path):
        header = json.loads(text)
        _check_format(path, header)
        check(header, HeaderJson, "")
        return dict(header), _records(header)


def pack(text: str) -> str:
    """The metadata entry for a header: itself, or deflated with its format beside, from 3 on."""
    header = json.loads(text)
    if header["format"] < 3:
        return text
    deflated = b85encode(zlib.compress(text.encode(), 9, -15)).decode()
    return json.dumps({**_beside(header), "deflated": deflated}, separators=(",", ":"))


def _beside(header: dict[str, Any]) -> dict[str, Any]:
    """What stands beside a deflated header too, for those who cannot read it."""
    return {name: header[name] for name in ("format", "lincon")}


def unpack(path: Path, entry: str) -> str:
    """The text that `pack` packed. Raises FileError if it is damaged or has a newer format."""
    with _reading(path):
        header = json.loads(entry)
        _check_format(path, header)
        if not isinstance(header, dict) or "deflated" not in header:
            return entry
        deflated = b85decode(header["deflated"])
        text = inflated(deflated, LONGEST).decode()
        # The checksum is inside: what is outside must be what the inside makes of it.
        if header != {**_beside(json.loads(text)), "deflated": b85encode(deflated).decode()}:
            raise ValueError("what stands beside it is of another")
        return text


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Anything that JSON may raise is a FileError."""
    try:
        yield
    except FileError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise FileError(
            f"{path}: its description is damaged ({error}); get another copy."
        ) from None


def _check_format(path: Path, header: Any) -> None:
    version = header.get("format") if isinstance(header, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise FileError(
            f"{path} has format {version} and this lincon reads up to {FORMAT}: "
            f"install lincon {header.get('lincon', '(newer)')} or later."
        )


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
