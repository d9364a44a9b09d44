"""Hash: each row reads a bucket drawn uniformly by a hash of its number, with a hashed sign.

G[i, h(i)] = ξ(i), h uniform on [0, dof), ξ = ±1. Buckets are filled unevenly, and a share of about
exp(-rows / dof) stays empty. Per layer (`scope="tensor"`) it is HashedNets (Chen et al.,
"Compressing neural networks with the hashing trick", ICML 2015, eq. 3 and 7), with a hash of our
own.

When to use: to compare with HashedNets, or as the plainest scheme with signs. At few weights a free
number, part of the DoF is never read, which `ring` avoids.
"""

from typing import final

from torch import Tensor

from lincon.counter import checked_bound, key, row_signs, word_below, words
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.kernels import Loop
from lincon.maps.registry import register
from lincon.shapes import Int

_BUCKET_STREAM, _SIGN_STREAM = 2, 5


@register
@final
class Hash(OneNonzero):
    """Signed, uniform buckets: G[i, h(i)] = ξ(i) (HashedNets, ICML 2015).

    Cost: O(rows); nothing is stored.

    >>> Hash(rows=6, dof=2, seed=0).sparse().toarray()
    array([[ 0., -1.],
           [ 0.,  1.],
           [ 0., -1.],
           [ 1.,  0.],
           [ 0., -1.],
           [ 0., -1.]])
    """

    name = "hash"
    version = 2

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, checked_bound(dof), seed)

    def entries(self, rows: Int[Tensor, " n"]) -> Entries:
        bucket = word_below(words(key(self.seed, _BUCKET_STREAM), rows), self.dof)
        return bucket, row_signs(key(self.seed, _SIGN_STREAM), rows)

    def loop(self) -> Loop | None:
        sign_key, bucket_key = key(self.seed, _SIGN_STREAM), key(self.seed, _BUCKET_STREAM)
        return Loop("buckets", self.dof, sign_key, bucket_key)
