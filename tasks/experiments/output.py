"""Files that experiments write: whole or not at all, by one process, and over nothing of others.

A command may replace a file that it wrote before, and no other. It knows the file by its mark, a
sentence that says which command wrote it: in a PNG the text `Comment`, in JSON the entry `lincon`,
in Markdown and SVG a comment on the last line.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

from lincon.files.atomic import atomic_write, check_replaceable
from lincon.tasks.experiments.training.ranks import is_first

__all__ = ["check_replaceable", "mark_of", "write_output"]

_PNG_HEADER = 33  # bytes of the signature and of the first chunk


def mark_of(command: str) -> str:
    """The mark of what a command writes.

    >>> mark_of("compare")
    'Written by lincon compare.'
    """
    return f"Written by lincon {command}."


def write_output(path: Path, content: bytes | str, mark: str = "") -> None:
    """Write a file whole or not at all, as `lincon.save` does; missing folders are made.

    Of processes that train together, only the first writes.

    Args:
        path: of the file; with a mark, a `.png`, `.svg`, `.json` or `.md`.
        content: of the file.
        mark: is written into the file. If there is a file already, it must have this mark. Without
            a mark the caller answers for what is replaced.

    Raises:
        LinconError: there is a file without this mark.
    """
    if not is_first():
        return
    encoded = content if isinstance(content, bytes) else content.encode()
    if mark:
        check_replaceable(path, mark)
        encoded = _WITH_MARK[path.suffix](encoded, mark)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded)


def _marked_png(content: bytes, mark: str) -> bytes:
    chunk = b"tEXtComment\0" + mark.encode()
    size, checksum = len(chunk) - 4, zlib.crc32(chunk)
    framed = size.to_bytes(4, "big") + chunk + checksum.to_bytes(4, "big")
    return content[:_PNG_HEADER] + framed + content[_PNG_HEADER:]


def _marked_json(content: bytes, mark: str) -> bytes:
    return json.dumps({**json.loads(content), "lincon": mark}, indent=1).encode()


def _marked_svg(content: bytes, mark: str) -> bytes:
    return content + f"<!-- {mark} -->\n".encode()


def _marked_markdown(content: bytes, mark: str) -> bytes:
    return content + f"\n<!-- {mark} -->\n".encode()


_WITH_MARK: dict[str, Callable[[bytes, str], bytes]] = {
    ".png": _marked_png,
    ".json": _marked_json,
    ".md": _marked_markdown,
    ".svg": _marked_svg,
}
