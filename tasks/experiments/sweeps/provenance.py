"""Where numbers come from: versions, commit and machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import lincon

_LIBRARIES = ("torch", "numpy", "lightning", "torchmetrics", "kornia", "scikit-learn")


def provenance() -> dict[str, Any]:
    """Plain JSON of three parts.

    `versions` by library; the `commit` of lincon's checkout, None outside of one; the `machine`.
    """
    versions = {"python": platform.python_version(), "lincon": lincon.__version__}
    versions |= {name: version(name) for name in _LIBRARIES}
    return {"versions": versions, "commit": _commit(), "machine": _machine()}


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _commit() -> str | None:
    """The commit, with `-dirty` where files differ from it.

    None unless git tracks the very files that run: an installed copy may lie inside of another
    repository.
    """
    folder = Path(lincon.__file__).parent
    if not _git(folder, "ls-files", "--error-unmatch", "__init__.py"):
        return None
    return _git(folder, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails or is not installed."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
