"""Identity: G = I, the unconstrained network behind the interface of all others (`vanilla`).

G[i, j] = 1 if i == j. Cost: a copy.
"""

from typing import Any, final

import torch
from torch import Tensor

from lincon.errors import DofError
from lincon.generator import Generator
from lincon.maps.registry import register


@register
@final
class Identity(Generator):
    """Ŵ = W; rows and dof are equal, the seed means nothing."""

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

    def _write(self, out: Tensor, free: Tensor, start: int) -> None:
        out.copy_(free[start : start + len(out)])

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        out[start : start + len(grad)] += grad

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        return (
            torch.ones(self.dof, dtype=torch.float64) if weights is None else weights.double().cpu()
        )
