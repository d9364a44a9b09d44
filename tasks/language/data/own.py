"""A text of the user's own: `--data my.txt`, or `--data my.txt:context=256`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lincon import LinconError
from lincon.tasks.experiments.data.expected import check_file
from lincon.tasks.experiments.names import options
from lincon.tasks.language.data.text import Text

ENDING = ".txt"


class OwnText(Text):
    """The bytes of a file.

    Args:
        path: of the file; any bytes will do.
    """

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        path: Path,
        context: int = 128,
    ) -> None:
        self.path, self.name = path, path.name
        super().__init__(seed, batch, root, limit, context=context)

    def pieces(self, root: Path | None) -> Sequence[bytes]:
        if root is not None:
            raise LinconError(f"--data {self.path} is a whole path: leave --root out.")
        return [check_file(self.path, "give the path of a .txt file.").read_bytes()]


def own_data(name: str) -> Callable[..., Text] | None:
    """The text of a path that ends in .txt, with the options after its colon; None for other names.

    Raises:
        LinconError: an unknown option.
    """
    path, ending, rest = name.partition(ENDING)
    if not ending or (rest and not rest.startswith(":")):
        return None
    make = partial(OwnText, path=Path(path + ending))
    text = rest.removeprefix(":")
    return partial(make, **options(name, make, text)) if text else make
