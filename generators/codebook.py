"""Codebook: every weight is one of dof shared values. G is the assignment, W the values.

G[i, a(i)] = 1. The assignment is fitted to trained weights by k-means on the line (dynamic
programming on a histogram, then Lloyd's iterations), W starts at the centroids and is then
fine-tuned: the weight sharing of Deep Compression (Han, Mao and Dally, ICLR 2016, section 3), whose
summed centroid gradient is Gᵀ g. No seed can rebuild the assignment: the file stores it, in one
byte a weight up to 256 centroids (255, where some weights are zero and stay so).

When to use: to compress a network that is trained already: few distinct values, fine-tuned. It is
no scheme to train with from the start.
"""

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.kernels import Loop
from lincon.maps.per_device import per_device
from lincon.maps.registry import register
from lincon.shapes import Float, Int, Integer

ITERATIONS = 1000
"""Lloyd's iterations at most; they stop earlier if nothing changes."""
BINS = 512
"""Bins of the histogram at whose edges the first clusters are cut."""


@register
@final
class Codebook(OneNonzero):
    """An assignment of weights to shared values: G[i, a(i)] = 1 (Deep Compression, ICLR 2016).

    Cost: O(rows).

    Args:
        rows, dof, seed: as every generator; the seed means nothing.
        index: (rows,) integers in [0, dof); dof itself stands for a row of zeros, a weight that was
            pruned.

    >>> weights = torch.tensor([1.0, 1.2, -3.0, 0.0])
    >>> codebook = Codebook.fit(weights, dof=2)
    >>> codebook.project(weights)
    tensor([-3.0000,  1.1000])
    >>> codebook.unpack(codebook.project(weights))
    tensor([ 1.1000,  1.1000, -3.0000,  0.0000])
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
        self._index = index.detach().cpu().to(_smallest_integer(dof + self._pruned))

    @classmethod
    def fit(cls, weights: Float[Tensor, " rows"], dof: int, seed: int = 0) -> "Codebook":
        """Cluster ``weights`` into ``dof`` values by k-means, to convergence.

        Weights that are exactly zero, as pruning leaves them, stay so, and the values are those of
        the others.
        """
        values = weights.detach().double().cpu().numpy()
        index = torch.full((len(values),), dof)
        if values.any():
            nonzero = np.flatnonzero(values)
            index[torch.from_numpy(nonzero)] = _kmeans(values[nonzero], dof)
        return cls(len(values), dof, seed, index=index)

    @classmethod
    def for_weights(
        cls, weights: Float[Tensor, " rows"], dof: int, seed: int, **options: Any
    ) -> "Codebook":
        return cls(len(weights), dof, seed, **options) if options else cls.fit(weights, dof, seed)

    def tables(self) -> dict[str, Tensor]:
        return {"index": self._index}

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        index = self._index_on(rows.device)[rows].long()
        if not self._pruned:
            return index, None
        # A pruned weight reads the last value, times zero.
        return index.clamp(max=self.dof - 1), (index < self.dof).to(torch.int8)

    def loop(self) -> Loop | None:
        return Loop("tabled", self.dof, index=self._index)

    @per_device
    def _index_on(self, device: torch.device) -> Integer[Tensor, " rows"]:
        return self._index.to(device)

    def energy(self, start: int, stop: int) -> float:
        return float((self._index[start:stop].long() < self.dof).sum()) / max(1, stop - start)


def _smallest_integer(count: int) -> torch.dtype:
    """The smallest integer type for ``count`` different numbers."""
    if count <= 256:
        return torch.uint8
    return torch.int16 if count <= 1 << 15 else torch.int32


def _kmeans(values: np.ndarray, k: int) -> Int[Tensor, " n"]:
    """Cluster numbers of values on the line, in the order of the centres.

    Lloyd's iterations start at the best cuts of a histogram.
    Clusters on the line are intervals, so an assignment is a list of k + 1 places where the sorted
    values are cut.
    """
    order = np.argsort(values, kind="stable")
    line = values[order]
    sums = _cumulated(line)
    cuts = _first_cuts(line, k)
    centres = np.full(k, line.mean())
    for _ in range(ITERATIONS):
        counts = np.diff(cuts)
        means = np.diff(sums[cuts]) / np.maximum(counts, 1)
        # A centre without values stays where it is.
        centres = np.sort(np.where(counts > 0, means, centres))
        midpoints = (centres[1:] + centres[:-1]) / 2
        new_cuts = _cut_at(line, midpoints)
        if np.array_equal(new_cuts, cuts):
            break
        cuts = new_cuts
    clusters = np.empty(len(line), np.int64)
    clusters[order] = np.repeat(np.arange(k), np.diff(cuts))
    return torch.from_numpy(clusters)


def _first_cuts(line: np.ndarray, k: int) -> np.ndarray:
    """The best k + 1 places to cut sorted values into k clusters, among edges of `BINS` bins."""
    # Bins are dense as the cube root of the density, as the best quantiser for many centres is.
    density, edges = np.histogram(line, bins=BINS)
    cumulated = _cumulated(np.cbrt(density))
    levels = np.linspace(0, cumulated[-1], BINS + 1)
    bin_edges = np.interp(levels, cumulated, edges)
    places = _cut_at(line, bin_edges[1:-1])
    cuts: np.ndarray = places[_cheapest_cuts(_squared_errors(line, places), k)]
    return cuts


def _squared_errors(line: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The squared distance of line[places[i] : places[j]] from its mean, Σx² - (Σx)² / n.

    It is infinite for i > j.
    """
    count, total, squares = (_between(_cumulated(line**power)[places]) for power in (0, 1, 2))
    errors: np.ndarray = np.where(count > 0, squares - total * total / np.maximum(count, 1), 0.0)
    errors[np.tril_indices(len(places), -1)] = np.inf
    return errors


def _between(cumulated: np.ndarray) -> np.ndarray:
    """The sum from place i to place j, for all pairs."""
    sums: np.ndarray = cumulated[None, :] - cumulated[:, None]
    return sums


def _cheapest_cuts(cost: np.ndarray, k: int) -> list[int]:
    """The k + 1 edges of k intervals whose costs add up to least, by dynamic programming.

    The interval from edge i to edge j costs cost[i, j].

    >>> _cheapest_cuts(np.array([[0, 1, 9, 9], [9, 0, 1, 9], [9, 9, 0, 1], [9, 9, 9, 0]]), k=3)
    [0, 1, 2, 3]
    """
    last = len(cost) - 1
    best = cost[0]  # of the values up to each edge, with one interval so far
    best_starts = []  # for each further interval, where it starts if it ends at an edge
    for _ in range(k - 1):
        totals = best[:, None] + cost
        best_starts.append(totals.argmin(0))
        best = totals.min(0)
    edges = [last]
    for starts in reversed(best_starts):
        edges.append(int(starts[edges[-1]]))
    return [0, *reversed(edges)]


def _cumulated(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... n values, (n + 1,)."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _cut_at(line: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Places at which sorted values are cut by thresholds, from 0 to their number."""
    return np.concatenate([[0], np.searchsorted(line, thresholds), [len(line)]])
