"""Files are written whole or not at all."""

from pathlib import Path

from lincon.files.atomic import atomic_write
from lincon.tasks.experiments.training.ranks import is_first


def write_output(path: Path, content: bytes | str) -> None:
    """Write ``content`` as `lincon.save` writes; missing folders are made. Of ranks that train together, the first."""
    if not is_first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_bytes(content if isinstance(content, bytes) else content.encode())
