"""Files that are written whole or not at all, and over nothing that lincon did not write."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from lincon.errors import FileError, LinconError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which is synced and renamed to ``path`` at the end.

    If ``path`` is a link, it stays one, and what it leads to is replaced. If anything fails, the
    file is unchanged.

    Raises:
        FileError: the file could not be written.
        LinconError: the folder does not exist, or ``path`` is a folder, a device or a pipe.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise LinconError(f"{path.parent} is not a folder; make it first.")
    if path.is_dir():
        raise LinconError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not path.is_file():
        raise LinconError(f"{path} is a device or a pipe; give the name of a file.")
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")  # the pattern of `remove_partial`
    try:
        temporary.touch()
        # safetensors would create a file that only its owner can read.
        mode = (path if path.exists() else temporary).stat().st_mode
        yield temporary
        temporary.chmod(stat.S_IMODE(mode))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError | SafetensorError):
            why = getattr(error, "strerror", None) or error
            raise FileError(
                f"{path} could not be written ({why}); an earlier file is as it was."
            ) from error
        raise


def check_replaceable(path: Path, mark: str) -> None:
    """Raise LinconError unless nothing is at ``path``, or a file that holds ``mark``.

    A mark is a sentence that says what wrote a file. A link is nothing that lincon wrote.
    """
    if path.is_dir():
        raise LinconError(f"{path} is a folder; give the name of a file.")
    if not os.path.lexists(path):
        return
    is_ours = path.is_file() and not path.is_symlink() and mark.encode() in path.read_bytes()
    if not is_ours:
        writer = mark[:1].lower() + mark[1:].rstrip(".")
        raise LinconError(
            f"{path} exists and was not {writer}: give another name or folder, or move it away."
        )


def remove_partial(folder: Path) -> None:
    """Remove the files of killed writes from a folder. Nobody may write to it at the same time."""
    for temporary in folder.glob(".*." + 32 * "[0-9a-f]"):
        temporary.unlink(missing_ok=True)
