"""The contents of a model file, read and checked without a model: `inspect`."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lincon.errors import FileError
from lincon.files.coding import BUDGET, decode, drawn
from lincon.files.description import TABLES, GroupRecord
from lincon.files.entry import without_entries
from lincon.files.header import read, seal, unpack

READS = 100
"""How often a file is read that others replace all the time."""


@dataclass(frozen=True)
class Contents:
    """The contents of a file.

    Attributes:
        path: the path of the file.
        header: its description (JSON).
        tensors: all stored tensors, by key, but for entries (see `lincon.files.entry`).
        bytes: the size of the file.
        records: its groups, by the prefix of their owner's names in the model.
    """

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Tensor]
    bytes: int
    records: dict[str, list[GroupRecord]] = field(repr=False)

    @property
    def groups(self) -> list[GroupRecord]:
        """All groups, owner after owner."""
        return [record for records in self.records.values() for record in records]

    @property
    def dof(self) -> int:
        """Degrees of freedom: the total length of the free vectors."""
        return sum(group.generator["dof"] for group in self.groups)

    @property
    def rows(self) -> int:
        """The number of generated weights."""
        return sum(group.generator["rows"] for group in self.groups)

    @property
    def total(self) -> int:
        """The count of stored numbers: free vectors and unconstrained tensors, not tables of G."""
        stored = [tensor for name, tensor in self.tensors.items() if not name.startswith(TABLES)]
        return sum(tensor.numel() for tensor in stored)

    def __str__(self) -> str:
        version = f"lincon {self.header['lincon']}, format {self.header['format']}"
        lines = [
            f"{self.path}: {version}, {self.bytes:,} bytes",
            f"dof {self.dof:,} -> {self.rows:,} generated weights; {self.total:,} numbers stored",
        ]
        if base := self.header.get("base"):
            lines.append(f"what was trained alone, on the model of checksum {base['sha256'][:16]}")
        for group in self.groups:
            lines += _lines(group)
        return "\n".join(lines)


def _lines(group: GroupRecord) -> list[str]:
    """A line for a group, and one for each of its tensors."""
    spec = group.generator
    settings = {"rows": spec["rows"], "dof": spec["dof"], "seed": spec["seed"], **spec["options"]}
    arguments = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    lines = [f"  {group.free}: {spec['name']}({arguments})"]
    for entry in group.ledger:
        shape = " x ".join(map(str, entry.shape))
        tied = f" (tied: {', '.join(entry.names[1:])})" if entry.names[1:] else ""
        place = f"    {entry.start:>12,}  {entry.name}"
        lines.append(f"{place}  {shape}  scale {entry.scale:.4g}{tied}")
    return lines


def inspect(path: str | os.PathLike[str]) -> Contents:
    """Read a file and check that it is complete and unaltered.

    ``str()`` of the result is a readable report.

    Raises:
        FileError: the file is damaged, altered, too new, or not a file of lincon.
        FileNotFoundError: there is no such file.

    >>> import lincon, tempfile, torch
    >>> model = torch.nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = lincon.save(model, f"{folder}/model.safetensors")
    ...     contents = lincon.inspect(f"{folder}/model.safetensors")
    >>> contents.dof, contents.rows, contents.total
    (16, 32, 20)
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a model file in it.")
    metadata, tensors, size = _stored(path)
    if "lincon" not in metadata:
        raise FileError(
            f"{path} was not written by lincon; load it with safetensors.torch.load_file."
        )
    text = unpack(path, metadata["lincon"])
    header, records = read(path, text)
    if text != seal(header, tensors):
        raise FileError(
            f"{path} was altered after it was saved (its SHA-256 differs); get another copy."
        )
    return Contents(path, header, _decoded(path, header, tensors), size, records)


def _stored(path: Path) -> tuple[dict[str, str], dict[str, Tensor], int]:
    """Metadata, tensors and size of one file.

    safetensors opens a file twice. If another was renamed to its place in between, both are read again.
    """
    for _ in range(READS):
        before = path.stat()
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            damage: Exception | None = error
        else:
            damage = None
        if os.path.samestat(before, path.stat()):
            break
    if damage is not None:
        raise FileError(
            f"{path} is not a whole safetensors file ({damage}); copy or save it again."
        )
    return metadata, tensors, before.st_size


def _decoded(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with the coded ones decoded within one budget."""
    # The header describes the groups; entries serve those who read the tensors alone.
    plain, budget = without_entries(tensors), BUDGET
    try:
        for name, description in header.get("coded", {}).items():
            plain[name] = decode(tensors[name], description, budget)
            budget -= drawn(plain[name].nbytes, tensors[name].nbytes)
        return plain
    except (FileError, KeyError, AttributeError) as error:
        raise FileError(f"{path}: {error}") from None
