"""Segments: consecutive ranges of rows, each with a multiplier."""

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

    @classmethod
    @lru_cache
    def plain(cls, rows: int) -> "Segments":
        """One segment of rows that stay as they are."""
        return cls([(0, rows, 1.0)])

    def starting_at(self, row: int) -> np.ndarray:
        """Segments as rows of an array, (n, 3) float64, which holds row numbers to 2^53."""
        return self._array + np.array([row, row, 0.0]) if row else self._array

    @cached_property
    def _array(self) -> np.ndarray:
        return np.array(self, np.float64).reshape(-1, 3)


NO_SEGMENTS = Segments()
"""For rows that stay as they are."""
