"""Files that are written whole or not at all."""

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
    """A temporary name beside ``path`` that, synced, becomes it at the end; or nothing does, and
    FileError says why."""
    if not path.parent.is_dir():
        raise LinconError(f"{path.parent} is not a folder; make it first.")
    if path.is_dir():
        raise LinconError(f"{path} is a folder; give the name of a file.")
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")  # as `remove_partial` knows them
    try:
        temporary.touch()
        mode = (
            (path if path.exists() else temporary).stat().st_mode
        )  # safetensors' own would be for the owner alone
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
                f"{path} could not be written ({why}); what was there before is as it was."
            ) from error
        raise


def remove_partial(folder: Path) -> None:
    """Remove what writes that were killed have left in a folder to which nobody writes at present."""
    for temporary in folder.glob(".*." + 32 * "[0-9a-f]"):
        temporary.unlink(missing_ok=True)
