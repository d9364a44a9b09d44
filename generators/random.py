"""Random: random weight sharing, each row reads an entry drawn uniformly with replacement, no sign.

G[i, u(i)] = 1, u i.i.d. uniform on [0, dof). The baseline that the Recurrent Parameter Generator is compared with
(Wang et al., WACV 2023: "R34-random weight share"); its exact form is not published, this is our reading.
"""

from typing import final

from torch import Tensor

from lincon.counter import below, bits, key
from lincon.generators._single import Entries, Single
from lincon.maps.registry import register

_STREAM = 3


@register
@final
class Random(Single):
    """Uniform sharing with replacement. Cost: O(rows), nothing stored."""

    name = "random"

    def entries(self, rows: Tensor) -> Entries:
        return below(bits(key(self.seed, _STREAM), rows), self.dof), None
