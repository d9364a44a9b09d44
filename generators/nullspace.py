"""Nullspace: weights that obey linear equalities A Ŵ = b that the user states.

Ŵ = W₀ + G W, where W₀ = A⁺ b solves the equalities by least squares and the columns of G are an orthonormal basis of
the null space of A, so every W gives weights that obey them, and projection is Gᵀ(Ŵ - W₀). Rows that no equality
mentions together are independent, so the basis is found block by block (connected components of A) by singular
value decomposition, and G is sparse. The basis depends on the linear algebra library: it is stored in the file.

    lincon.constrain(conv, "nullspace", dof=None, equalities=zero_sum(64 * 3, 9))   # every 3x3 kernel sums to zero
"""

from typing import Any, final

import numpy as np
import scipy
import torch
from torch import Tensor

from lincon.errors import DofError, LinconError
from lincon.generator import Generator
from lincon.generators.matrix import Matrix, from_scipy
from lincon.maps.registry import register

Equalities = (
    Any  # Tensor | ndarray | scipy sparse array or matrix; scipy.sparse is not imported yet
)


@register
@final
class Nullspace(Generator):
    """Linear equalities on the weights.

    Args:
        rows: generated weights; the width of A.
        dof: rows - rank(A), or None: it follows from A.
        seed: means nothing.
        equalities: A, (equations, rows).
        values: b, (equations,); zero by default. Equalities that no weights obey are refused.
        indptr, indices, entries, origin: the basis and W₀ as a file holds them.
    """

    name = "nullspace"
    diagonal_gram = True
    starts_from_weights = True

    def __init__(
        self,
        rows: int,
        dof: int | None,
        seed: int = 0,
        *,
        equalities: Equalities | None = None,
        values: Any = None,
        indptr: Tensor | None = None,
        indices: Tensor | None = None,
        entries: Tensor | None = None,
        origin: Tensor | None = None,
    ) -> None:
        if equalities is not None:
            basis, origin = _solve(equalities, values, rows)
            tables = from_scipy(basis)
            width = basis.shape[1]
        elif (
            indptr is not None
            and indices is not None
            and entries is not None
            and origin is not None
            and dof
        ):
            tables = {"indptr": indptr, "indices": indices, "values": entries}
            width = dof
        else:
            raise LinconError(
                "nullspace: give equalities=A, (equations, rows), for A @ weights = values."
            )
        if width == 0:
            raise DofError(
                "nullspace: the equalities leave no degree of freedom; state fewer of them."
            )
        if dof not in (None, width):
            raise DofError(
                f"nullspace: the equalities leave {width} degrees of freedom, not {dof}; give dof=None."
            )
        super().__init__(rows, width, seed)
        self._basis = Matrix(rows, width, seed, **tables)
        if (
            origin.shape != (rows,)
            or origin.dtype != torch.float64
            or not bool(origin.isfinite().all())
        ):
            raise LinconError(f"nullspace: origin must be ({rows},) float64 and finite.")
        self._origin = origin

    @classmethod
    def default_dof(cls, rows: int, options: dict[str, Any]) -> int | None:
        return None

    def tables(self) -> dict[str, Tensor]:
        b = self._basis.tables()
        return {
            "indptr": b["indptr"],
            "indices": b["indices"],
            "entries": b["values"],
            "origin": self._origin,
        }

    def offset(self) -> Tensor | None:
        return self._origin if bool(self._origin.any()) else None

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        self._basis.write(out, prepared, start)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        self._basis.accumulate(out, grad, start)

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        return self._basis.gram_diagonal(weights)


def zero_sum(groups: int, size: int) -> "scipy.sparse.csr_array":
    """A for: each of ``groups`` consecutive runs of ``size`` weights sums to zero. (groups, groups * size)."""
    return scipy.sparse.csr_array(
        scipy.sparse.kron(scipy.sparse.eye_array(groups), np.ones((1, size)))
    )


def tied(groups: int, size: int) -> "scipy.sparse.csr_array":
    """A for: within each of ``groups`` consecutive runs of ``size`` all weights are equal."""
    steps = np.eye(size - 1, size) - np.eye(size - 1, size, 1)
    return scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(groups), steps))


def symmetric(groups: int, size: int) -> "scipy.sparse.csr_array":
    """A for: each of ``groups`` consecutive ``size`` x ``size`` squares equals its transpose."""
    upper, lower = np.triu_indices(size, 1)
    above, below = upper * size + lower, lower * size + upper
    pair = np.arange(len(above))
    entries = np.concatenate([np.ones(len(pair)), -np.ones(len(pair))])
    square = scipy.sparse.coo_array(
        (entries, (np.tile(pair, 2), np.concatenate([above, below]))),
        shape=(len(pair), size * size),
    )
    return scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(groups), square))


def _solve(
    equalities: Equalities, values: Any, rows: int
) -> "tuple[scipy.sparse.csr_array, Tensor]":
    """The basis (rows, dof) and W₀ (rows,) of A w = b, component by component."""
    if isinstance(equalities, Tensor):
        equalities = equalities.detach().cpu().double().numpy()
    a = scipy.sparse.csr_array(equalities, dtype=np.float64)
    if a.shape[1] != rows:
        raise LinconError(f"nullspace: A has {a.shape[1]} columns, but there are {rows} weights.")
    b = np.zeros(a.shape[0]) if values is None else np.asarray(values, np.float64).reshape(-1)
    if len(b) != a.shape[0]:
        raise LinconError(f"nullspace: {len(b)} values for {a.shape[0]} equalities.")
    if not (np.isfinite(a.data).all() and np.isfinite(b).all()):
        raise LinconError("nullspace: the equalities hold a value that is not finite.")
    origin = np.zeros(rows)
    blocks: list[tuple[np.ndarray, np.ndarray]] = []
    solved: dict[tuple[int, bytes], tuple[np.ndarray, np.ndarray]] = {}
    for equations, members in _components(a):
        part = a[equations][:, members].toarray()
        slot = len(members), part.tobytes()
        if slot not in solved:
            solved[slot] = _null(part), np.linalg.pinv(part)
        basis, inverse = solved[slot]
        origin[members] = inverse @ b[equations]
        blocks.append((members, basis))
    residual = np.abs(a @ origin - b).max(initial=0.0)
    if residual > 1e-9 * max(1.0, np.abs(b).max(initial=0.0)):
        raise LinconError(
            f"nullspace: no weights obey the equalities; the nearest miss by {residual:.3g}."
        )
    return _assemble(blocks, rows), torch.from_numpy(origin)


def _null(part: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the null space of one block; all of space where nothing is asked."""
    return scipy.linalg.null_space(part) if part.size else np.eye(part.shape[1])


def _components(a: "scipy.sparse.csr_array") -> list[tuple[np.ndarray, np.ndarray]]:
    """(equations, weights) of each connected component of the bipartite graph of A, in order of first weight."""
    equations = a.shape[0]
    graph = scipy.sparse.block_array([[None, a], [a.T, None]])
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    pairs = [(g[g < equations], g[g >= equations] - equations) for g in groups]
    return sorted((p for p in pairs if len(p[1])), key=lambda p: int(p[1][0]))


def _assemble(blocks: list[tuple[np.ndarray, np.ndarray]], rows: int) -> "scipy.sparse.csr_array":
    row, column, entry, width = [], [], [], 0
    for members, basis in blocks:
        row.append(np.repeat(members, basis.shape[1]))
        column.append(np.tile(np.arange(width, width + basis.shape[1]), len(members)))
        entry.append(basis.reshape(-1))
        width += basis.shape[1]
    parts = (np.concatenate(entry), (np.concatenate(row), np.concatenate(column)))
    return scipy.sparse.csr_array(scipy.sparse.coo_array(parts, shape=(rows, width)))
