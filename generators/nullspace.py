"""Nullspace: weights that obey linear equalities A Ŵ = b, which the user states.

Ŵ = W₀ + G W, where W₀ = A⁺ b solves the equalities by least squares and the columns of G are an
orthonormal basis of the null space of A. So every W gives weights that obey them, and projection is
Gᵀ(Ŵ - W₀). Rows that no equality mentions together are independent, so the basis is found block by
block (connected components of A) by singular value decomposition, and G is sparse. The basis
depends on the linear algebra library: it is stored in the file. So that each 3x3 kernel sums to 0:

    lincon.constrain(conv, "nullspace", dof=None, equalities=zero_sum(64 * 3, 9))
"""

from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from lincon.errors import DofError, LinconError
from lincon.generator import Generator
from lincon.generators.matrix import Matrix, from_scipy
from lincon.maps.registry import register
from lincon.shapes import Float, Float64

if TYPE_CHECKING:
    import scipy

Equalities = Any
"""Tensor, ndarray, scipy sparse array or matrix (`scipy.sparse` is not imported yet)."""

Block = tuple[np.ndarray, np.ndarray]
"""Weights that equalities tie together, (n,), and a basis of the freedom they have left, (n, k)."""


@register
@final
class Nullspace(Generator):
    """Linear equalities on the weights: Ŵ = W₀ + G W with A W₀ = b and A G = 0.

    Cost: O(nonzeros of G).

    Args:
        rows: generated weights; the width of A.
        dof: rows - rank(A), or None: it follows from A.
        seed: means nothing.
        equalities: A, (equations, rows).
        values: b, (equations,); zero by default.
        indptr, indices, entries, origin: the basis and W₀ as a file holds them.

    Raises:
        LinconError: equalities that no weights obey, that are not of ``rows`` weights, or that are
            not finite.
        DofError: equalities that leave no degree of freedom, or another number of them than
            ``dof``.

    >>> nullspace = Nullspace(rows=4, dof=None, equalities=tied(groups=2, size=2))
    >>> nullspace.dof
    2
    >>> nullspace.unpack(nullspace.project(torch.tensor([1.0, 3.0, 5.0, 5.0]))).round(decimals=3)
    tensor([2., 2., 5., 5.])
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
        elif indptr is None or indices is None or entries is None or origin is None or not dof:
            raise LinconError(
                "nullspace: give equalities=A, (equations, rows), for A @ weights = values."
            )
        else:
            tables = {"indptr": indptr, "indices": indices, "values": entries}
            width = dof
        if width == 0:
            raise DofError(
                "nullspace: the equalities leave no degree of freedom; state fewer of them."
            )
        if dof not in (None, width):
            raise DofError(
                f"nullspace: the equalities leave {width} degrees of freedom, not {dof}; "
                "give dof=None."
            )
        super().__init__(rows, width, seed)
        self._basis = Matrix(rows, width, seed, **tables)
        as_asked = origin.shape == (rows,) and origin.dtype == torch.float64
        if not as_asked or not bool(origin.isfinite().all()):
            raise LinconError(f"nullspace: origin must be ({rows},) float64 and finite.")
        self._origin = origin

    @classmethod
    def default_dof(cls, rows: int, options: dict[str, Any]) -> int | None:
        return None

    def tables(self) -> dict[str, Tensor]:
        basis = self._basis.tables()
        return {
            "indptr": basis["indptr"],
            "indices": basis["indices"],
            "entries": basis["values"],
            "origin": self._origin,
        }

    def offset(self) -> Float64[Tensor, " rows"] | None:
        return self._origin if bool(self._origin.any()) else None

    def work(self, rows: int) -> float:
        return self._basis.work(rows)

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        self._basis.write(out, prepared, start)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        self._basis.accumulate(out, grad, start)

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        return self._basis.gram_diagonal(weights)


def zero_sum(groups: int, size: int) -> "scipy.sparse.csr_array":
    """A that makes each of ``groups`` consecutive runs of ``size`` weights sum to zero.

    >>> zero_sum(groups=2, size=2).toarray()
    array([[1., 1., 0., 0.],
           [0., 0., 1., 1.]])
    """
    return _for_each(groups, np.ones((1, size)))


def tied(groups: int, size: int) -> "scipy.sparse.csr_array":
    """A that makes all weights equal within each of ``groups`` consecutive runs of ``size``.

    >>> tied(groups=1, size=3).toarray()
    array([[ 1., -1.,  0.],
           [ 0.,  1., -1.]])
    """
    differences = np.eye(size - 1, size) - np.eye(size - 1, size, 1)
    return _for_each(groups, differences)


def symmetric(groups: int, size: int) -> "scipy.sparse.csr_array":
    """A that makes ``groups`` consecutive squares of ``size`` x ``size`` weights symmetric.

    >>> symmetric(groups=1, size=2).toarray()
    array([[ 0.,  1., -1.,  0.]])
    """
    import scipy

    row, column = np.triu_indices(size, 1)
    above, below = row * size + column, column * size + row
    pair = np.arange(len(above))
    entries = np.concatenate([np.ones(len(pair)), -np.ones(len(pair))])
    places = np.tile(pair, 2), np.concatenate([above, below])
    square = scipy.sparse.coo_array((entries, places), shape=(len(pair), size * size))
    return _for_each(groups, square)


def _for_each(groups: int, equalities: Any) -> "scipy.sparse.csr_array":
    """The same equalities for each of ``groups`` runs of weights: a block diagonal A."""
    import scipy

    return scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(groups), equalities))


def _solve(
    equalities: Equalities, values: Any, rows: int
) -> "tuple[scipy.sparse.csr_array, Tensor]":
    """The basis (rows, dof) and W₀ (rows,) of A w = b, component by component."""
    a, b = _checked(equalities, values, rows)
    origin = np.zeros(rows)
    blocks: list[Block] = []
    # Components are often alike, such as all kernels of a layer: each kind is decomposed once.
    solved: dict[tuple[int, bytes], tuple[np.ndarray, np.ndarray]] = {}
    for equations, members in _components(a):
        part = a[equations][:, members].toarray()
        kind = len(members), part.tobytes()
        if kind not in solved:
            solved[kind] = _null_space(part), np.linalg.pinv(part)
        basis, inverse = solved[kind]
        origin[members] = inverse @ b[equations]
        blocks.append((members, basis))
    residual = np.abs(a @ origin - b).max(initial=0.0)
    if residual > 1e-9 * max(1.0, np.abs(b).max(initial=0.0)):
        raise LinconError(
            f"nullspace: no weights obey the equalities; the nearest miss by {residual:.3g}."
        )
    return _assemble(blocks, rows), torch.from_numpy(origin)


def _checked(
    equalities: Equalities, values: Any, rows: int
) -> "tuple[scipy.sparse.csr_array, np.ndarray]":
    """A as a CSR array and b, in float64; LinconError unless they fit together and are finite."""
    import scipy

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
    return a, b


def _null_space(part: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the null space of one block, (n, k); without equalities, of all."""
    import scipy

    return scipy.linalg.null_space(part) if part.size else np.eye(part.shape[1])


def _components(a: "scipy.sparse.csr_array") -> list[tuple[np.ndarray, np.ndarray]]:
    """(equations, weights) of each connected component of the bipartite graph of A.

    They come in the order of their first weights.
    """
    import scipy

    equations = a.shape[0]
    graph = scipy.sparse.block_array([[None, a], [a.T, None]])
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    components = []
    for nodes in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        weights = nodes[nodes >= equations] - equations
        if len(weights):
            components.append((nodes[nodes < equations], weights))
    return sorted(components, key=lambda component: int(component[1][0]))


def _assemble(blocks: list[Block], rows: int) -> "scipy.sparse.csr_array":
    """G, (rows, dof): the bases side by side, each in the rows of its weights."""
    import scipy

    row, column, entry, width = [], [], [], 0
    for members, basis in blocks:
        freedom = basis.shape[1]
        row.append(np.repeat(members, freedom))
        column.append(np.tile(np.arange(width, width + freedom), len(members)))
        entry.append(basis.reshape(-1))
        width += freedom
    places = np.concatenate(row), np.concatenate(column)
    coo = scipy.sparse.coo_array((np.concatenate(entry), places), shape=(rows, width))
    return scipy.sparse.csr_array(coo)
