"""Pieces: the gradients of some ranges of rows, of which a generator adds up as many as there are."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lincon.maps.segments import NO_SEGMENTS, Segments
from lincon.shapes import Float

SMALL = 1 << 14
"""Pieces of fewer rows are copied side by side: a call costs more than the copy."""


class Piece(NamedTuple):
    """The gradient of the rows from ``start`` on.

    Attributes:
        start: the first row.
        rows: (n,).
        segments: the multipliers, counted from ``start``; empty where all are 1.
    """

    start: int
    rows: Float[Tensor, " n"]
    segments: Segments = NO_SEGMENTS

    def with_segments(self) -> "Piece":
        """The same, with one segment of its rows if it had none."""
        return (
            self if self.segments else Piece(self.start, self.rows, Segments.plain(len(self.rows)))
        )

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + len(self.rows)


def joined(pieces: Iterable[Piece], grain: int) -> Iterator[Piece]:
    """The same rows, where small pieces that lie side by side are one.

    >>> pieces = [Piece(0, torch.ones(2)), Piece(2, torch.zeros(1)), Piece(5, torch.ones(1))]
    >>> [(piece.start, piece.rows.tolist()) for piece in joined(pieces, grain=1)]
    [(0, [1.0, 1.0, 0.0]), (5, [1.0])]
    """
    small: list[Piece] = []
    for piece in pieces:
        is_small = len(piece.rows) < max(grain, SMALL)
        if small and not (is_small and _is_next(small[-1], piece)):
            yield _side_by_side(small)
            small = []
        if is_small:
            small.append(piece)
        else:
            yield piece
    if small:
        yield _side_by_side(small)


def _is_next(before: Piece, piece: Piece) -> bool:
    return before.stop == piece.start and before.rows.dtype == piece.rows.dtype


def _side_by_side(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    first, rows = pieces[0].start, torch.cat([piece.rows for piece in pieces])
    if not any(piece.segments for piece in pieces):
        return Piece(first, rows)
    segments = Segments.joined(
        (piece.start - first + low, piece.start - first + high, scale)
        for piece in pieces
        for low, high, scale in piece.with_segments().segments
    )
    return Piece(first, rows, segments)
