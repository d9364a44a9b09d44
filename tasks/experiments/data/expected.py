"""Files and folders that a data set must have; a refusal says what is there instead."""

from pathlib import Path

from lincon import LinconError


def check_file(path: Path, remedy: str) -> Path:
    """``path``, if it is a file; else LinconError, which ends with the remedy."""
    if path.is_dir():
        raise LinconError(f"{path} is a folder, where a file is expected: {remedy}")
    if not path.is_file():
        raise LinconError(f"{path} is missing: {remedy}")
    return path


def check_folder(path: Path, remedy: str) -> Path:
    """``path``, if it is a folder; else LinconError, which ends with the remedy."""
    if path.is_file():
        raise LinconError(f"{path} is a file, where a folder is expected: {remedy}")
    if not path.is_dir():
        raise LinconError(f"{path} is missing: {remedy}")
    return path
