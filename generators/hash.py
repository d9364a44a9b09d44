"""Hash: each row reads a bucket drawn uniformly by a hash of its number, with a hashed sign.

G[i, h(i)] = ξ(i), h uniform on [0, dof), ξ = ±1. Buckets are filled unevenly, and a share of about
exp(-rows / dof) stays empty. Per layer (`scope="tensor"`) it is HashedNets (Chen et al.,
"Compressing neural networks with the hashing trick", ICML 2015, eq. 3 and 7), with a hash of our
own.
"""

from typing import final

from torch import Tensor

from lincon.counter import below, bits, key, signs
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.maps.registry import register
from lincon.shapes import Int

_STREAM = 2


@register
@final
class Hash(OneNonzero):
    """Signed, uniform buckets: G[i, h(i)] = ξ(i) (HashedNets, ICML 2015).

    Cost: O(rows); nothing is stored.

    >>> Hash(rows=6, dof=2, seed=0).sparse().toarray()
    array([[ 0., -1.],
           [ 0., -1.],
           [ 1.,  0.],
           [ 0., -1.],
           [ 0., -1.],
           [ 0.,  1.]])
    """

    name = "hash"

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        random = bits(key(self.seed, _STREAM), rows)
        return below(random, self.dof), signs(random)
