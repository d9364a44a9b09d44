"""Matrix: any G that the user brings.

It may be a torch tensor, a NumPy array, a scipy sparse matrix or a LinearOperator. No seed can
rebuild it, so it is stored in the model's file: dense, or as the three arrays of CSR. A
LinearOperator is applied to the unit vectors once and kept as CSR. Cost: that of the product.
"""

from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator
from lincon.maps.per_device import per_device
from lincon.maps.registry import register
from lincon.maps.scatter import add_at
from lincon.shapes import Float, Int

if TYPE_CHECKING:
    import scipy

Entries = Any
"""A tensor, array, scipy sparse matrix or LinearOperator; `scipy.sparse` is not imported yet."""

Csr = tuple[Int[Tensor, " rows"], Int[Tensor, " nonzeros"], Float[Tensor, " nonzeros"]]
"""Nonzeros row by row: how many each row has, their columns and their values."""


@register
@final
class Matrix(Generator):
    """A G given by its entries: G[i, j] = matrix[i, j].

    Cost: O(rows dof), or O(nonzeros) of a sparse one.

    Args:
        rows, dof, seed: the shape must be that of the matrix; the seed means nothing.
        matrix: (rows, dof), real and finite. It is copied, and kept in its own precision (float32
            or float64).
        indptr, indices, values: the same as CSR arrays; this is how a file holds a sparse one.

    Raises:
        LinconError: neither of them, another shape, inconsistent arrays, or an entry that is not
            finite.

    >>> matrix = Matrix(rows=3, dof=2, matrix=[[1, 0], [1, 1], [0, 1]])
    >>> matrix.unpack(torch.tensor([1.0, 2.0]))
    tensor([1., 3., 2.])
    """

    name = "matrix"
    allows_unused = True

    def __init__(
        self,
        rows: int,
        dof: int,
        seed: int = 0,
        *,
        matrix: Entries | None = None,
        indptr: Tensor | None = None,
        indices: Tensor | None = None,
        values: Tensor | None = None,
    ) -> None:
        super().__init__(rows, dof, seed)
        if indptr is not None and indices is not None and values is not None:
            self._tables = _check_csr(rows, dof, indptr, indices, values)
        elif matrix is not None:
            self._tables = _tables(matrix, rows, dof)
        else:
            raise LinconError(
                "matrix: give matrix=, a tensor, array, scipy sparse matrix or LinearOperator."
            )

    @classmethod
    def default_dof(cls, rows: int, options: dict[str, Any]) -> int | None:
        if "matrix" in options:
            return int(np.shape(options["matrix"])[1])
        return super().default_dof(rows, options)

    def tables(self) -> dict[str, Tensor]:
        return self._tables

    def work(self, rows: int) -> float:
        nonzeros = self._tables["matrix" if self._is_dense else "values"].numel()
        return rows * max(1.0, nonzeros / self.rows)

    @property
    def _is_dense(self) -> bool:
        return "matrix" in self._tables

    @per_device
    def _dense_on(self, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "rows dof"]:
        return self._tables["matrix"].to(device, dtype)

    @per_device
    def _sparse_on(self, device: torch.device, dtype: torch.dtype) -> Csr:
        lengths, indices = self._tables["indptr"].diff(), self._tables["indices"]
        return lengths.to(device), indices.to(device), self._tables["values"].to(device, dtype)

    def _nonzeros(self, start: int, stop: int, like: Tensor) -> Csr:
        """The nonzeros of rows [start, stop), with the device and dtype of ``like``."""
        lengths, indices, values = self._sparse_on(like.device, like.dtype)
        low, high = int(self._tables["indptr"][start]), int(self._tables["indptr"][stop])
        return lengths[start:stop], indices[low:high], values[low:high]

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        free = prepared.to(torch.promote_types(out.dtype, torch.float32))
        if self._is_dense:
            matrix = self._dense_on(free.device, free.dtype)
            out.copy_(matrix[start : start + len(out)] @ free)
        else:
            lengths, indices, values = self._nonzeros(start, start + len(out), free)
            out.copy_(torch.segment_reduce(values * free[indices], "sum", lengths=lengths))

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        grad = grad.to(out.dtype)
        if self._is_dense:
            matrix = self._dense_on(out.device, out.dtype)
            out += grad @ matrix[start : start + len(grad)]
        else:
            lengths, indices, values = self._nonzeros(start, start + len(grad), out)
            add_at(out, indices, values * grad.repeat_interleave(lengths))

    def gram_diagonal(self, weights: Float[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        csr = _to_scipy(self._tables, (self.rows, self.dof))
        scale = np.ones(self.rows) if weights is None else weights.double().cpu().numpy()
        return torch.from_numpy(np.asarray(csr.multiply(csr).T @ scale, np.float64))


def _to_scipy(tables: dict[str, Tensor], shape: tuple[int, int]) -> "scipy.sparse.csr_array":
    """The tables as a scipy CSR array, float64."""
    import scipy

    if "matrix" in tables:
        return scipy.sparse.csr_array(tables["matrix"].double().numpy())
    values, indices, indptr = (tables[name].numpy() for name in ("values", "indices", "indptr"))
    return scipy.sparse.csr_array((values.astype(np.float64), indices, indptr), shape=shape)


def from_scipy(matrix: Any) -> dict[str, Tensor]:
    """CSR tables of a scipy sparse matrix: indices sorted, duplicates summed."""
    import scipy

    csr = scipy.sparse.csr_array(matrix, copy=True)
    csr.sum_duplicates()
    values = csr.data if csr.data.dtype in (np.float32, np.float64) else csr.data.astype(np.float64)
    return {
        "indptr": torch.from_numpy(csr.indptr.astype(np.int64)),
        "indices": torch.from_numpy(csr.indices.astype(np.int64)),
        "values": torch.from_numpy(values.copy()),
    }


def _check_csr(
    rows: int, dof: int, indptr: Tensor, indices: Tensor, values: Tensor
) -> dict[str, Tensor]:
    """The three arrays as tables; LinconError unless they are a valid CSR matrix, and finite."""
    integers = indptr.dtype == indices.dtype == torch.int64
    floats = values.dtype in (torch.float32, torch.float64)
    shapes = indptr.shape == (rows + 1,) and indices.shape == values.shape == (values.numel(),)
    if not (integers and floats and shapes):
        raise LinconError(
            f"matrix: indptr, indices, values are not the CSR arrays of a {rows} x {dof} matrix."
        )
    steps = indptr.diff()
    ordered = indptr[0] == 0 and indptr[-1] == len(indices) and bool((steps >= 0).all())
    within = not len(indices) or (int(indices.min()) >= 0 and int(indices.max()) < dof)
    if not (ordered and within and bool(values.isfinite().all())):
        raise LinconError(
            "matrix: the CSR arrays are inconsistent or hold a value that is not finite."
        )
    return {"indptr": indptr, "indices": indices, "values": values}


def _tables(matrix: Entries, rows: int, dof: int) -> dict[str, Tensor]:
    """What a user brings as tables: dense, or the three arrays of CSR."""
    import scipy

    if isinstance(matrix, list | tuple):
        matrix = np.asarray(matrix, np.float64)
    if tuple(matrix.shape) != (rows, dof):
        raise LinconError(
            f"matrix: it has shape {tuple(matrix.shape)}, the constraint needs {(rows, dof)} "
            "(rows: the generated weights; dof: give the matrix's width)."
        )
    if isinstance(matrix, scipy.sparse.linalg.LinearOperator):
        columns = [scipy.sparse.csc_array(matrix @ e[:, None]) for e in np.eye(dof)]
        matrix = scipy.sparse.hstack(columns)
    if isinstance(matrix, Tensor) and matrix.layout != torch.strided:
        coo = matrix.detach().cpu().to_sparse_coo().coalesce()
        entries = coo.values().numpy(), coo.indices().numpy()
        matrix = scipy.sparse.coo_array(entries, shape=(rows, dof))
    if scipy.sparse.issparse(matrix):
        return _check_csr(rows, dof, **from_scipy(matrix))
    dense = torch.as_tensor(matrix).detach().cpu().clone()
    if dense.dtype not in (torch.float32, torch.float64):
        dense = dense.double()
    if not bool(dense.isfinite().all()):
        raise LinconError("matrix: it holds a value that is not finite.")
    return {"matrix": dense.contiguous()}
