"""Hash: each row reads a bucket drawn uniformly by a hash of its number, with a hashed sign.

G[i, h(i)] = ξ(i), h uniform on [0, dof), ξ = ±1. Buckets are filled unevenly: about exp(-rows / dof) of them stay
empty. Per layer (`scope="tensor"`) it is HashedNets (Chen et al., "Compressing neural networks with the hashing
trick", ICML 2015, eq. 3 and 7), with a hash of our own.
"""

from typing import final

from torch import Tensor

from lincon.counter import below, bits, key, signs
from lincon.generators._single import Entries, Single
from lincon.maps.registry import register

_STREAM = 2


@register
@final
class Hash(Single):
    """Signed, uniform buckets. Cost: O(rows), nothing stored."""

    name = "hash"

    def entries(self, rows: Tensor) -> Entries:
        random = bits(key(self.seed, _STREAM), rows)
        return below(random, self.dof), signs(random)
