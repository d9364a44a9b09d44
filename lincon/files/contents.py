"""What a model file holds, read and checked, before it is known for which model (see `files`)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lincon.attaching.ledger import Ledger
from lincon.errors import FileError
from lincon.files.coding import PLENTY, decode, excess
from lincon.files.header import read, seal

TABLES = "lincon.tables."
"""Before the keys of what no seed can rebuild of a generator."""


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
        return [
            group for constraint in self.header["constraints"] for group in constraint["groups"]
        ]

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
        return sum(t.numel() for name, t in self.tensors.items() if not name.startswith(TABLES))

    def __str__(self) -> str:
        lines = [
            f"{self.path}: lincon {self.header['lincon']}, format {self.header['format']}, {self.bytes:,} bytes",
            f"dof {self.dof:,} -> {self.rows:,} generated weights; {self.total:,} numbers stored",
        ]
        for group in self.groups:
            spec = group["generator"]
            settings = {
                "rows": spec["rows"],
                "dof": spec["dof"],
                "seed": spec["seed"],
                **spec["options"],
            }
            lines.append(
                f"  {group['free']}: {spec['name']}({', '.join(f'{k}={v!r}' for k, v in settings.items())})"
            )
            for entry in Ledger.from_json(group["ledger"]):
                shape = " x ".join(map(str, entry.shape))
                tied = f" (tied: {', '.join(entry.names[1:])})" if entry.names[1:] else ""
                lines.append(
                    f"    {entry.start:>12,}  {entry.name}  {shape}  scale {entry.scale:.4g}{tied}"
                )
        return "\n".join(lines)


def inspect(path: str | os.PathLike[str]) -> Contents:
    """Read a file and check that it is whole and unaltered; ``str()`` of the result is a readable report.

    Raises FileError, naming the file, what is wrong, and what to do; FileNotFoundError.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the name of a model file in it.")
    size = path.stat().st_size
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(
            f"{path} is not a whole safetensors file ({error}); copy or save it again."
        ) from None
    if "lincon" not in metadata:
        raise FileError(
            f"{path} was not written by lincon; load it with safetensors.torch.load_file."
        )
    header = read(path, metadata["lincon"])
    if metadata["lincon"] != seal(header, tensors):
        raise FileError(
            f"{path} was altered after it was saved (its SHA-256 differs); get another copy."
        )
    return Contents(path, header, _decoded(path, header, tensors), size)


def _decoded(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    plain, plenty = dict(tensors), PLENTY
    try:
        for name, how in header.get("coded", {}).items():
            plain[name] = decode(tensors[name], how, plenty)
            plenty -= excess(plain[name].nbytes, tensors[name].nbytes)
        return plain
    except (FileError, KeyError, AttributeError) as error:
        raise FileError(f"{path}: {error}") from None
