"""The obvious way of writing each generator in torch, with all that it needs in memory, for timings.

A way is a pair of functions, of the free vector and of the gradient of the weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lincon.generators import Fastfood, Kronecker

Way = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
STORED_BYTES = 1 << 30
"""The largest matrix that is stored."""


def table(rows: int, dof: int) -> Way:
    """An index and a mask, `w[index] * mask`: of every map with one nonzero a row."""
    index, mask = torch.randint(dof, (rows,)), torch.randn(rows).sign()
    return (
        lambda free: free[index] * mask,
        lambda grad: torch.zeros(dof).index_add_(0, index, grad * mask),
    )


def dense(rows: int, dof: int) -> Way | None:
    """The product with a stored matrix."""
    if rows * dof * 4 > STORED_BYTES:
        return None
    matrix = torch.randn(rows, dof).sign() / rows**0.5
    return lambda free: matrix @ free, lambda grad: grad @ matrix


def sparse(rows: int, dof: int) -> Way | None:
    """The product with a matrix of about √rows nonzeros a column as CSR, and with its transpose."""
    strata = -(-rows // round(rows**0.5))
    nonzeros = strata * dof
    if nonzeros * 12 > STORED_BYTES:
        return None
    places = torch.stack([torch.randint(rows, (nonzeros,)), torch.arange(nonzeros) % dof])
    matrix = torch.sparse_coo_tensor(places, torch.randn(nonzeros).sign(), (rows, dof))
    forward, backward = matrix.to_sparse_csr(), matrix.T.to_sparse_csr()
    return lambda free: forward @ free, lambda grad: backward @ grad


def fastfood(rows: int, dof: int) -> Way:
    """Two transforms a block, butterfly by butterfly, with diagonals and permutations stored."""
    size = Fastfood(rows, dof).size
    blocks = -(-rows // size)
    sign, normal = torch.randn(blocks, size).sign(), torch.randn(blocks, size)
    forward = torch.stack([torch.randperm(size) for _ in range(blocks)])
    backward = forward.argsort(1)

    def unpack(free: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(free, (0, size - dof))
        mixed = butterflies(padded * sign).gather(1, forward) * normal
        return butterflies(mixed).view(-1)[:rows] / (rows * size) ** 0.5

    def adjoint(grad: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(grad, (0, blocks * size - rows)).view(blocks, size)
        mixed = (butterflies(padded) * normal).gather(1, backward)
        return (butterflies(mixed) * sign).sum(0)[:dof] / (rows * size) ** 0.5

    return unpack, adjoint


def butterflies(x: Tensor) -> Tensor:
    """The Hadamard transform of each row, by sums and differences."""
    shape, half = x.shape, 1
    while half < shape[-1]:
        pairs = x.view(-1, 2, half)
        x = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1)
        half *= 2
    return x.view(shape)


def kronecker(rows: int, dof: int) -> Way:
    """Two products with stored factors, float32, and a stored permutation."""
    shape = Kronecker(rows, dof)
    height, width = shape.height, shape.width
    first, second = torch.randn(height, width), torch.randn(height, width)
    corner = torch.randn(rows - height**2, dof - width**2)
    places, order = torch.randperm(rows), torch.randperm(rows)

    def unpack(free: Tensor) -> Tensor:
        square = first @ free[: width**2].view(width, width) @ second.T
        return torch.cat([square.reshape(-1), corner @ free[width**2 :]])[places]

    def adjoint(grad: Tensor) -> Tensor:
        grad = grad[order]
        square = first.T @ grad[: height**2].view(height, height) @ second
        return torch.cat([square.reshape(-1), corner.T @ grad[height**2 :]])

    return unpack, adjoint


OBVIOUS: dict[str, Callable[[int, int], Way | None]] = {
    "dense": dense,
    "sparse": sparse,
    "fastfood": fastfood,
    "kronecker": kronecker,
}
"""Those that are not a table and a mask."""
