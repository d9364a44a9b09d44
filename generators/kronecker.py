"""Kronecker: G = Π (R₁ ⊗ R₂ ⊕ R₃), two dense factors of about √rows x √dof, what is left over, and a row permutation.

R₁ and R₂ are r x c with r ≈ √rows and c ≈ √dof, R₃ is the (rows - r²) x (dof - c²) corner, Π a keyed permutation of the
rows. Entries are normal, columns of norm 1 in expectation; ``orthonormal`` makes the columns of each factor orthonormal
by QR, and so those of G. The rounded double Kronecker projectors of Lotfi et al., "PAC-Bayes compression bounds so
tight that they can explain generalization", NeurIPS 2022 (RDKron and RDKronQR).

Cost: O(√(rows dof) (√rows + √dof)) time, whatever range of rows is asked for. Kept between calls: the factors and the
permutation.
"""

from functools import cached_property
from math import isqrt
from typing import Any, final

import torch
from torch import Tensor

from lincon.counter import bits, key, normals
from lincon.generator import Generator, chunks
from lincon.maps.permutation import Permutation
from lincon.maps.registry import register

_FACTOR, _PERMUTATION = 40, 41


@register
@final
class Kronecker(Generator):
    """Rounded double Kronecker projection.

    Args:
        rows, dof, seed: as every generator.
        orthonormal: whether GᵀG = I exactly (by QR) rather than in expectation.
    """

    name = "kronecker"

    def __init__(self, rows: int, dof: int, seed: int = 0, *, orthonormal: bool = False) -> None:
        super().__init__(rows, dof, seed)
        self.orthonormal = bool(orthonormal)
        self.diagonal_gram = self.orthonormal
        self.grain = rows
        self.height, self.width = _roots(rows, dof)
        self._placed: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]] = {}
        self._order: dict[torch.device, Tensor] = {}

    def options(self) -> dict[str, Any]:
        return {"orthonormal": self.orthonormal}

    def energy(self, start: int, stop: int) -> float:
        return self.dof / self.rows

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """R₁, R₂ (height, width) and R₃ (what is left of rows and dof), float64 on the CPU."""
        corner = self.rows - self.height**2, self.dof - self.width**2
        shapes = (self.height, self.width), (self.height, self.width), corner
        made = [self._factor(number, *shape) for number, shape in enumerate(shapes)]
        return made[0], made[1], made[2]

    def _factor(self, number: int, rows: int, columns: int) -> Tensor:
        size = rows * columns
        drawn = [
            normals(bits(key(self.seed, _FACTOR, number), torch.arange(a, b, device="cpu")))
            for a, b in chunks(0, size)
        ]
        matrix = (
            torch.cat(drawn).double().view(rows, columns)
            if size
            else torch.zeros(rows, columns, dtype=torch.float64)
        )
        if not self.orthonormal or not size:
            return matrix / max(1, rows) ** 0.5
        q, r = torch.linalg.qr(matrix)
        q = q * torch.where(torch.diagonal(r) < 0, -1.0, 1.0).double()
        return torch.round(q * 2**32) / 2**32  # the last bits depend on the library and its threads

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        if (device, dtype) not in self._placed:
            first, second, corner = (factor.to(device, dtype) for factor in self._factors)
            self._placed[device, dtype] = first, second, corner
        return self._placed[device, dtype]

    def _permutation(self, device: torch.device) -> Tensor:
        """Of row i: its place in the unpermuted product, (rows,) int32."""
        if device not in self._order:
            permutation = Permutation(self.rows, key(self.seed, _PERMUTATION))
            parts = [
                permutation(torch.arange(a, b, device=device)).int()
                for a, b in chunks(0, self.rows)
            ]
            self._order[device] = torch.cat(parts)
        return self._order[device]

    def _write(self, out: Tensor, free: Tensor, start: int) -> None:
        free = (
            free.double()
        )  # two products in a row: in float32 their last bits would depend on where memory lies
        product = self._apply(self._on(free.device, free.dtype), free)
        out.copy_(product[self._permutation(out.device)[start : start + len(out)]])

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        whole = out.new_zeros(self.rows)
        whole[self._permutation(out.device)[start : start + len(grad)]] = grad.to(out.dtype)
        out += self._transposed(self._on(out.device, out.dtype), whole)

    def _apply(self, factors: tuple[Tensor, Tensor, Tensor], free: Tensor) -> Tensor:
        first, second, corner = factors
        square = self.width**2
        product = first @ free[:square].view(self.width, self.width) @ second.T
        return torch.cat([product.reshape(-1), corner @ free[square:]])

    def _transposed(self, factors: tuple[Tensor, Tensor, Tensor], grad: Tensor) -> Tensor:
        first, second, corner = factors
        square = self.height**2
        product = first.T @ grad[:square].view(self.height, self.height) @ second
        return torch.cat([product.reshape(-1), corner.T @ grad[square:]])

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        if weights is None and self.orthonormal:
            return torch.ones(self.dof, dtype=torch.float64)
        placed = torch.ones(self.rows, dtype=torch.float64)
        if weights is not None:
            placed[self._permutation(placed.device)] = weights.double().cpu()
        first, second, corner = (factor.square() for factor in self._factors)
        return self._transposed((first, second, corner), placed)


def _roots(rows: int, dof: int) -> tuple[int, int]:
    """(height, width) of the factors: near the roots, with a corner that has rows and columns, or neither."""
    height, width = isqrt(rows), isqrt(dof)
    if (height**2 < rows) and width**2 == dof:
        width -= 1
    while rows - height**2 < dof - width**2 or height < width:
        height -= 1
    if width == 0:
        return 0, 0
    return height, width
