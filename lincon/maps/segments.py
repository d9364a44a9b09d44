"""Segments: consecutive ranges of rows, each with a multiplier."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cached_property, lru_cache

import numpy as np


class Segments(tuple[tuple[int, int, float], ...]):
    """Ranges of rows (low, high, multiplier), in order and without gaps.

    >>> Segments.joined([(0, 2, 1.0), (2, 3, 1.0), (3, 4, 0.5)])
    ((0, 3, 1.0), (3, 4, 0.5))
    """

    @classmethod
    def joined(cls, segments: Iterable[tuple[int, int, float]]) -> "Segments":
        """The same with neighbours of one multiplier as one: fewer segments are faster."""
        joined: list[tuple[int, int, float]] = []
        for low, high, scale in segments:
            if joined and joined[-1][2] == scale:
                low = joined.pop()[0]
            joined.append((low, high, scale))
        return cls(joined)

    def within(self, start: int, stop: int) -> "Segments":
        """The segments of the rows [start, stop), counted from ``start``.

        >>> Segments([(0, 2, 1.0), (2, 9, 0.5)]).within(1, 4)
        ((0, 1, 1.0), (1, 3, 0.5))
        """
        first = bisect_right(self, start, key=lambda segment: segment[1])
        last = bisect_left(self, stop, key=lambda segment: segment[0])
        return Segments(
            (max(low, start) - start, min(high, stop) - start, scale)
            for low, high, scale in self[first:last]
        )

    @classmethod
    @lru_cache
    def plain(cls, rows: int) -> "Segments":
        """One segment of rows that stay as they are."""
        return cls([(0, rows, 1.0)])

    def lying_at(self, row: int, base: int) -> np.ndarray:
        """What loops read, (n, 4) float64, which holds integers to 2^53.

        The first row of each segment, the one after the last, the multiplier, and ``base``.

        >>> Segments.plain(3).lying_at(10, base=7)
        array([[10., 13.,  1.,  7.]])
        """
        there: np.ndarray = (
            self._array + np.array([row, row, 0.0, base]) if row or base else self._array
        )
        return there

    @cached_property
    def _array(self) -> np.ndarray:
        return np.array([(*segment, 0) for segment in self], np.float64).reshape(-1, 4)


NO_SEGMENTS = Segments()
"""For rows that stay as they are."""
