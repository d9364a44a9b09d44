"""What lies in a folder of a data set, without what tools leave there."""

import os
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from lincon import LinconError
from lincon.errors import LinconWarning
from lincon.tasks.experiments.data.pictures import open_picture

LEFTOVERS = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "__macosx",
        "__pycache__",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
"""Names, in small letters, of what file managers, archivers and storage systems leave behind."""

SHOWN = 3  # names in a message


def is_leftover(name: str) -> bool:
    """Whether a tool leaves files or folders of this name: hidden ones, and copies of editors.

    >>> [is_leftover(name) for name in (".ipynb_checkpoints", "Thumbs.db", "a.png~", "a.png")]
    [True, True, True, False]
    """
    return name.startswith(".") or name.endswith("~") or name.lower() in LEFTOVERS


def entries_of(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders in a folder, and everything else in it; both sorted, without leftovers."""
    folders: list[Path] = []
    others: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not is_leftover(entry.name):
                (folders if entry.is_dir() else others).append(folder / entry.name)
    return folders, others


def pictures_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures in a folder, and everything else in it; both sorted, without leftovers.

    A picture is a file whose name ends as those of pictures do. A file whose name has no ending is
    one if it begins as one. Whether pictures are whole shows when they are read.

    Raises:
        LinconError: there are no pictures.
    """
    folders, files = entries_of(folder)
    pictures = [path for path in files if is_picture(path)]
    if not pictures:
        holds = f", but {listed(folder, folders + files)}" if folders or files else ""
        raise LinconError(f"{folder} holds no images{holds}: fill or remove it.")
    chosen = {*pictures}
    return pictures, folders + [path for path in files if path not in chosen]


def is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, or, if that has no ending, by how it begins."""
    if path.suffix:
        return path.suffix.lower() in _endings()
    try:
        with open_picture(path):
            return True
    except Exception:  # PIL raises whatever the bytes lead it to
        return False


def warn_of_rest(folder: Path, rest: Sequence[Path]) -> None:
    """Warn that a reader leaves out ``rest``, which lies in ``folder``; nothing if it is empty."""
    if rest:
        how_many = "1 entry" if len(rest) == 1 else f"{len(rest)} entries"
        warnings.warn(
            f"Left out of {folder}: {how_many} that this data set does not have, "
            f"{listed(folder, rest)}.",
            LinconWarning,
            stacklevel=3,
        )


def listed(folder: Path, paths: Sequence[Path]) -> str:
    """The first of some paths in ``folder``, in words."""
    names = [f"{path.relative_to(folder)}{'/' if path.is_dir() else ''}" for path in paths]
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])


@cache
def _endings() -> frozenset[str]:
    """The endings of the formats that PIL reads."""
    formats = Image.registered_extensions()
    return frozenset(ending for ending, name in formats.items() if name in Image.OPEN)
