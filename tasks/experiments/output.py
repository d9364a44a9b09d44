"""Files that experiments write: whole or not at all, and by one process."""

from pathlib import Path

from lincon.files.atomic import atomic_write
from lincon.tasks.experiments.training.ranks import is_first


def write_output(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, as `lincon.save` does; missing folders are made.

    Of processes that train together, only the first writes.
    """
    if not is_first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
