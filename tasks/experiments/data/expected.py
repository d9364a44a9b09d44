"""Files and folders that a data set must have; a refusal says what is there instead."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from lincon import LinconError
from lincon.tasks.experiments.data.listing import entries_of, listed

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".rar", ".7z")


def check_file(path: Path, remedy: str) -> Path:
    """``path``, if it is a file; else LinconError, which ends with the remedy."""
    if path.is_dir():
        raise LinconError(f"{path} is a folder, where a file is expected: {remedy}")
    if not path.is_file():
        raise LinconError(f"{path} is missing: {remedy}{similar(path)}")
    return path


def check_folder(path: Path, remedy: str) -> Path:
    """``path``, if it is a folder; else LinconError, which ends with the remedy."""
    if path.is_file():
        raise LinconError(f"{path} is a file, where a folder is expected: {remedy}")
    if not path.is_dir():
        raise LinconError(f"{path} is missing: {remedy}")
    return path


def check_root(root: Path) -> None:
    """Raise LinconError if the folder of a data set is a file."""
    if root.is_file():
        what = "unpack it, and give" if root.name.lower().endswith(ARCHIVES) else "give"
        raise LinconError(
            f"{root} is a file, where the folder of a data set is expected: {what} the folder."
        )


def similar(path: Path) -> str:
    """A sentence with the files beside ``path`` whose names begin alike, or nothing."""
    names = [each for each in _files(path.parent) if _letters(each).startswith(_letters(path))]
    return f" Similar names there: {listed(path.parent, names)}." if names else ""


def elsewhere(root: Path, names: Collection[str]) -> str:
    """A sentence that says where the data set is instead, or which archives may hold it, or nothing.

    Args:
        root: the folder without the data set. The folder around it is searched, and two levels of
            folders in it.
        names: of which a data set has at least one; a folder's ends in a slash.
    """
    for folder in _around(root):
        if any(_is_there(folder / name, name.endswith("/")) for name in names):
            return f" It seems to be in {folder}: give that with --root."
    archives = [path for path in _files(root) if path.name.lower().endswith(ARCHIVES)]
    return f" There are archives to unpack: {listed(root, archives)}." if archives else ""


def _is_there(path: Path, folder: bool) -> bool:
    return path.is_dir() if folder else path.is_file()


def _around(root: Path) -> Iterator[Path]:
    yield root.parent
    folders = _folders(root)
    yield from folders
    for folder in folders:
        yield from _folders(folder)


def _folders(folder: Path) -> list[Path]:
    return entries_of(folder)[0] if folder.is_dir() else []


def _files(folder: Path) -> list[Path]:
    return entries_of(folder)[1] if folder.is_dir() else []


def _letters(path: Path) -> str:
    """The letters and digits of a name without its ending, in small letters."""
    return re.sub(r"[^a-z0-9]", "", path.stem.lower())
