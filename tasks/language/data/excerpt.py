"""The text that needs no file: the first five chapters of Northanger Abbey."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from lincon import LinconError
from lincon.tasks.language.data.text import Text

FILE = Path(__file__).with_name("northanger_abbey.txt")
SHA256 = "585e58bee5f76c9b07c7d2f1e58e1d7c0be6a1e570cb0a750a3719c7664eec47"


class Excerpt(Text):
    """Chapters 1 to 5 of Northanger Abbey (Jane Austen 1817, public domain), 44,437 bytes.

    ``root`` is not used.
    """

    name = "excerpt"

    def pieces(self, root: Path | None) -> Sequence[bytes]:
        text = FILE.read_bytes()
        if sha256(text).hexdigest() != SHA256:
            raise LinconError(f"{FILE} is damaged: install lincon-torch again.")
        return [text]
