"""The base of all texts: bytes in two parts, read by windows."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Int64, UInt8
from lincon.tasks.experiments.data.sets import Data, Split
from lincon.tasks.language.data.batch import Batch

HELD_OUT = 10
"""The test part is the last one of so many equal parts of each piece of a text."""


class Windows(Split):
    """Windows of a text, one after the other; what is left at the end is in none.

    ``windows``: (n, context + 1) bytes, of which the last is the first that the next window reads.
    """

    def __init__(self, windows: UInt8[Tensor, "n length"]) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, indices: list[int]) -> Batch:
        chosen = self.windows[indices].long()
        return Batch(chosen[:, :-1], chosen[:, 1:])

    def subset(self, indices: Int64[Tensor, " items"]) -> Self:
        return type(self)(self.windows[indices])


class Text(Data):
    """A text in two parts, ``train_set`` and ``test_set``, of windows of bytes.

    The last tenth of each of its pieces, such as the pages of a book, is the test part, so that
    both parts speak of all subjects. Within a window each byte is predicted from those before it.

    Args:
        context: bytes that a model reads at once.

    Raises:
        LinconError: a part that is shorter than a window.
    """

    def __init__(
        self,
        seed: int = 0,
        batch: int = 16,
        root: Path | None = None,
        limit: int | None = None,
        *,
        context: int = 128,
    ) -> None:
        self.context = context
        super().__init__(seed, batch, root, limit)

    @property
    def shape(self) -> tuple[int]:
        return (self.context,)

    @abstractmethod
    def pieces(self, root: Path | None) -> Sequence[bytes]:
        """The pieces of the text, in order."""

    def prepared(self, batch: Batch, training: bool) -> Batch:
        return batch

    def _read(self, root: Path | None) -> tuple[Windows, Windows]:
        train, test = [], []
        for piece in self.pieces(root):
            cut = len(piece) - len(piece) // HELD_OUT
            train.append(piece[:cut])
            test.append(piece[cut:])
        return self._windows(train, "training"), self._windows(test, "test")

    def _windows(self, pieces: Sequence[bytes], part: str) -> Windows:
        text = b"".join(pieces)
        if len(text) <= self.context:
            raise LinconError(
                f"The {part} part of {self.name} has {len(text):,} bytes, too few for windows of "
                f"context={self.context} bytes and the one that follows: give a smaller context."
            )
        whole: Any = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        return Windows(whole.unfold(0, self.context + 1, self.context))
