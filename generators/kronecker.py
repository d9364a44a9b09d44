"""Kronecker: G = Π (R₁ ⊗ R₂ ⊕ R₃), two dense factors of about √rows x √dof and a permutation.

R₁ and R₂ are r x c with r ≈ √rows and c ≈ √dof, R₃ is the (rows - r²) x (dof - c²) corner, Π a
keyed permutation of the rows. Entries are normal, columns of norm 1 in expectation; ``orthonormal``
makes the columns of each factor orthonormal by QR, and so those of G. The rounded double Kronecker
projectors of Lotfi et al., "PAC-Bayes compression bounds so tight that they can explain
generalization", NeurIPS 2022 (RDKron and RDKronQR).

Cost: O(√(rows dof) (√rows + √dof)) time, whatever range of rows is asked for. Kept between calls:
the factors and the permutation.

When to use: for random subspaces in which columns are exactly orthonormal and applying G is cheap,
as in generalisation bounds. Not with ``materialize="layer"``.
"""

from functools import cached_property
from math import isqrt
from typing import Any, final

import torch
from torch import Tensor

from lincon.counter import bits, key, normals
from lincon.generator import chunks
from lincon.generators._projection import Projection
from lincon.maps.per_device import per_device
from lincon.maps.permutation import Permutation
from lincon.maps.registry import register
from lincon.shapes import Float, Int

_FACTOR_STREAM, _PERMUTATION_STREAM = 40, 41
ROUNDING = 2.0**-32
"""Entries of orthonormal factors are multiples of this: further bits depend on the library."""

Factors = tuple[Tensor, Tensor, Tensor]
"""R₁ and R₂, (height, width), and R₃, the corner."""


@register
@final
class Kronecker(Projection):
    """Rounded double Kronecker projection: G = Π (R₁ ⊗ R₂ ⊕ R₃) (Lotfi et al., NeurIPS 2022).

    Cost: O(√(rows dof) (√rows + √dof)), whatever range of rows is asked for.

    Args:
        rows, dof, seed: as every generator.
        orthonormal: whether GᵀG = I exactly (by QR) rather than in expectation.

    >>> gram = Kronecker(rows=9, dof=4, seed=0, orthonormal=True).gram_diagonal()
    >>> gram
    tensor([1., 1., 1., 1.], dtype=torch.float64)
    """

    name = "kronecker"
    version = 2

    def __init__(self, rows: int, dof: int, seed: int = 0, *, orthonormal: bool = False) -> None:
        super().__init__(rows, dof, seed)
        self.orthonormal = bool(orthonormal)
        self.diagonal_gram = self.orthonormal
        self.grain = rows
        self.height, self.width = _roots(rows, dof)

    def options(self) -> dict[str, Any]:
        return {"orthonormal": self.orthonormal}

    def work(self, rows: int) -> float:
        square = self.height * self.width * (self.height + self.width)
        corner = (self.rows - self.height**2) * (self.dof - self.width**2)
        return self.rows + square + corner

    @cached_property
    def _factors(self) -> Factors:
        """R₁, R₂ and R₃, float64 on the CPU."""
        first = self._factor(0, self.height, self.width)
        second = self._factor(1, self.height, self.width)
        corner = self._factor(2, self.rows - self.height**2, self.dof - self.width**2)
        return first, second, corner

    def _factor(self, number: int, rows: int, columns: int) -> Tensor:
        if rows * columns == 0:
            return torch.zeros(rows, columns, dtype=torch.float64)
        stream = key(self.seed, _FACTOR_STREAM, number)
        from einops import rearrange

        entries = torch.cat(
            [
                normals(bits(stream, torch.arange(low, high, device="cpu")))
                for low, high in chunks(0, rows * columns)
            ]
        )
        matrix = rearrange(entries.double(), "(row column) -> row column", column=columns)
        return _orthonormal(matrix) if self.orthonormal else matrix / rows**0.5

    @per_device
    def _factors_on(self, device: torch.device, dtype: torch.dtype) -> Factors:
        first, second, corner = self._factors
        return first.to(device, dtype), second.to(device, dtype), corner.to(device, dtype)

    @per_device
    def _permutation(self, device: torch.device) -> Int[Tensor, " rows"]:
        """The place of each row in the unpermuted product, int32."""
        permutation = Permutation(self.rows, key(self.seed, _PERMUTATION_STREAM))
        return torch.cat(
            [
                permutation(torch.arange(low, high, device=device)).int()
                for low, high in chunks(0, self.rows)
            ]
        )

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        # Two products in a row: in float32 their last bits would depend on where memory lies.
        free = prepared.double()
        product = _apply(self._factors_on(free.device, free.dtype), free)
        places = self._permutation(out.device)[start : start + len(out)]
        torch.index_select(product.to(out.dtype), 0, places, out=out)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        unpermuted = out.new_zeros(self.rows)
        places = self._permutation(out.device)[start : start + len(grad)]
        unpermuted[places] = grad.to(out.dtype)
        out += _apply_transpose(self._factors_on(out.device, out.dtype), unpermuted)

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        if weights is None and self.orthonormal:
            return torch.ones(self.dof, dtype=torch.float64)
        unpermuted = torch.ones(self.rows, dtype=torch.float64)
        if weights is not None:
            unpermuted[self._permutation(unpermuted.device)] = weights.double().cpu()
        # The squares of a Kronecker product are the product of the squares.
        first, second, corner = self._factors
        return _apply_transpose((first.square(), second.square(), corner.square()), unpermuted)


def _apply(factors: Factors, free: Float[Tensor, " dof"]) -> Float[Tensor, " rows"]:
    """(R₁ ⊗ R₂ ⊕ R₃) @ free, by (R₁ ⊗ R₂) vec(X) = vec(R₁ X R₂ᵀ)."""
    first, second, corner = factors
    width = first.shape[1]
    square = free[: width**2].view(width, width)
    product = first @ square @ second.T
    return torch.cat([product.reshape(-1), corner @ free[width**2 :]])


def _apply_transpose(factors: Factors, grad: Float[Tensor, " rows"]) -> Float[Tensor, " dof"]:
    """(R₁ ⊗ R₂ ⊕ R₃)ᵀ @ grad."""
    first, second, corner = factors
    height = first.shape[0]
    square = grad[: height**2].view(height, height)
    product = first.T @ square @ second
    return torch.cat([product.reshape(-1), corner.T @ grad[height**2 :]])


def _orthonormal(matrix: Tensor) -> Tensor:
    """Q of its QR decomposition, with signs that make R's diagonal positive, rounded."""
    q, r = torch.linalg.qr(matrix)
    sign = torch.where(torch.diagonal(r) < 0, -1.0, 1.0).double()
    rounded: Tensor = torch.round(q * sign / ROUNDING) * ROUNDING
    return rounded


def _roots(rows: int, dof: int) -> tuple[int, int]:
    """(height, width) of the factors, near the roots.

    The corner that they leave has rows and columns, or neither.
    """
    height, width = isqrt(rows), isqrt(dof)
    if (height**2 < rows) and width**2 == dof:
        width -= 1
    while rows - height**2 < dof - width**2 or height < width:
        height -= 1
    if width == 0:
        return 0, 0
    return height, width
