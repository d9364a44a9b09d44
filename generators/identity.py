"""Identity: G = I, the unconstrained network behind the interface of all others (`vanilla`).

G[i, j] = 1 if i == j. Cost: a copy.
"""

from typing import Any, final

import torch
from torch import Tensor

from lincon.errors import DofError
from lincon.generator import Generator
from lincon.maps.registry import register
from lincon.shapes import Float


@register
@final
class Identity(Generator):
    """Ŵ = W: G[i, j] = 1 if i == j. Rows and dof are equal, the seed means nothing. Cost: a copy.

    >>> Identity(rows=2, dof=2).dense()
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)
    """

    name = "identity"
    diagonal_gram = True
    disjoint = True
    starts_from_weights = True

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        super().__init__(rows, dof, seed)
        if rows != dof:
            raise DofError(
                f"identity: dof={dof} must equal rows={rows}; give dof=1.0 or leave it out."
            )

    @classmethod
    def default_dof(cls, rows: int, options: dict[str, Any]) -> int | None:
        return rows

    def work(self, rows: int) -> float:
        return rows

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        out.copy_(prepared[start : start + len(out)])

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        out[start : start + len(grad)] += grad

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        if weights is None:
            return torch.ones(self.dof, dtype=torch.float64)
        return weights.double().cpu()
