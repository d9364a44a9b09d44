"""Random: random weight sharing, each row reads an entry drawn uniformly with replacement, no sign.

G[i, u(i)] = 1, u i.i.d. uniform on [0, dof). The baseline that the Recurrent Parameter Generator is
compared with (Wang et al., WACV 2023: "R34-random weight share"); its exact form is not published,
this is our reading.

When to use: as the baseline of the ring's paper: what sharing alone does, without order and signs.
"""

from typing import final

from torch import Tensor

from lincon.counter import checked_bound, key, word_below, words
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.kernels import Loop
from lincon.maps.registry import register
from lincon.shapes import Int

_STREAM = 3


@register
@final
class Random(OneNonzero):
    """Uniform sharing with replacement: G[i, u(i)] = 1. Cost: O(rows), nothing is stored.

    >>> Random(rows=6, dof=2, seed=0).sparse().toarray()
    array([[1., 0.],
           [0., 1.],
           [1., 0.],
           [0., 1.],
           [1., 0.],
           [1., 0.]])
    """

    name = "random"
    version = 2

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, checked_bound(dof), seed)

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        return word_below(words(key(self.seed, _STREAM), rows), self.dof), None

    def loop(self) -> Loop | None:
        return Loop("buckets", self.dof, key=key(self.seed, _STREAM))
