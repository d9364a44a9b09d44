"""Codebook: every weight is one of dof shared values; G is the assignment, W the values (centroids).

G[i, a(i)] = 1. The assignment is fitted to trained weights by k-means on the line (dynamic programming on a histogram,
then Lloyd's iterations), W starts at the centroids and is then fine-tuned: the weight sharing of Deep Compression (Han,
Mao and Dally, ICLR 2016, section 3), whose summed centroid gradient is Gᵀ g. No seed can rebuild the assignment: the
file stores it, in one byte a weight up to 256 centroids (255, where some weights are zero and stay so).
"""

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generators._single import Entries, Single
from lincon.maps.registry import register

ITERATIONS = 1000
BINS = 512


@register
@final
class Codebook(Single):
    """An assignment of weights to shared values.

    Args:
        rows, dof, seed: as every generator; the seed means nothing.
        index: (rows,) integers in [0, dof); dof itself stands for a row of zeros, a weight that was pruned.
    """

    name = "codebook"
    starts_from_weights = True

    def __init__(self, rows: int, dof: int, seed: int = 0, *, index: Tensor | None = None) -> None:
        super().__init__(rows, dof, seed)
        if index is None:
            raise LinconError(
                "codebook: give index=, or Codebook.fit(weights, dof) to cluster trained weights."
            )
        if index.shape != (rows,) or index.is_floating_point():
            raise LinconError(
                f"codebook: index must be integers of shape ({rows},), got {tuple(index.shape)}."
            )
        if int(index.min()) < 0 or int(index.max()) > dof:
            raise LinconError(f"codebook: index holds values outside [0, {dof}].")
        self._pruned = int(index.max()) == dof
        self._index = index.detach().cpu().to(_smallest(dof + self._pruned))
        self._placed: dict[torch.device, Tensor] = {}

    @classmethod
    def fit(cls, weights: Tensor, dof: int, seed: int = 0) -> "Codebook":
        """Cluster ``weights`` (rows,) into ``dof`` values by k-means, to convergence.

        Weights that are exactly zero, as pruning leaves them, stay so, and the values are those of the others.
        """
        values = weights.detach().double().cpu().numpy()
        index = torch.full((len(values),), dof)
        if values.any():
            kept = np.flatnonzero(values)
            index[torch.from_numpy(kept)] = _kmeans(values[kept], dof)
        return cls(len(values), dof, seed, index=index)

    @classmethod
    def for_weights(cls, weights: Tensor, dof: int, seed: int, **options: Any) -> "Codebook":
        return cls(len(weights), dof, seed, **options) if options else cls.fit(weights, dof, seed)

    def tables(self) -> dict[str, Tensor]:
        return {"index": self._index}

    def entries(self, rows: Tensor) -> Entries:
        if rows.device not in self._placed:
            self._placed[rows.device] = self._index.to(rows.device)
        index = self._placed[rows.device][rows].long()
        return (
            (index.clamp(max=self.dof - 1), (index < self.dof).to(torch.int8))
            if self._pruned
            else (index, None)
        )

    def energy(self, start: int, stop: int) -> float:
        return float((self._index[start:stop].long() < self.dof).sum()) / max(1, stop - start)


def _first_cuts(line: np.ndarray, k: int) -> np.ndarray:
    """Where to cut sorted values into k clusters: the best cuts among the edges of `BINS` bins, by dynamic programming.

    Bins are dense as the cube root of the density, as the best quantiser for many centres is.
    """
    density, edges = np.histogram(line, bins=BINS)
    cumulated = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
    grid = np.interp(np.linspace(0, cumulated[-1], BINS + 1), cumulated, edges)
    places = np.concatenate([[0], np.searchsorted(line, grid[1:-1]), [len(line)]])
    moments = [np.concatenate([[0.0], np.cumsum(line**power)])[places] for power in (0, 1, 2)]
    n, s, q = (m[None, :] - m[:, None] for m in moments)
    cost = np.where(n > 0, q - s * s / np.maximum(n, 1), 0.0)
    cost[np.tril_indices(BINS + 1, -1)] = np.inf
    best, choices = cost[0], []
    for _ in range(k - 1):
        total = best[:, None] + cost
        choices.append(total.argmin(0))
        best = total.min(0)
    end, cuts = BINS, [BINS]
    for choice in reversed(choices):
        end = int(choice[end])
        cuts.append(end)
    return places[[0, *reversed(cuts)]]


def _smallest(count: int) -> torch.dtype:
    """The smallest integer type that counts to ``count``."""
    return torch.uint8 if count <= 256 else torch.int16 if count <= 1 << 15 else torch.int32


def _kmeans(values: np.ndarray, k: int) -> Tensor:
    """Cluster numbers (n,) of values on the line."""
    order = np.argsort(values, kind="stable")
    line = values[order]
    sums = np.concatenate([[0.0], np.cumsum(line)])
    cuts = _first_cuts(line, k)
    centres = np.full(k, line.mean())
    for _ in range(ITERATIONS):
        counts = np.diff(cuts)
        centres = np.sort(
            np.where(counts > 0, np.diff(sums[cuts]) / np.maximum(counts, 1), centres)
        )
        new = np.concatenate(
            [[0], np.searchsorted(line, (centres[1:] + centres[:-1]) / 2), [len(line)]]
        )
        if np.array_equal(new, cuts):
            break
        cuts = new
    index = np.empty(len(line), np.int64)
    index[order] = np.repeat(np.arange(k), np.diff(cuts))
    return torch.from_numpy(index)
