"""The abstract generator: a fixed linear map G that is computed, never learned and never stored.

An author says twice what G does to a range of rows: `_write` (G[start:stop] @ free) and
`_accumulate` (+= G[start:stop].T @ grad). Autograd, projection, spec, fingerprint and operators are
derived here.

If part of the work depends only on the free vector, factor G = H S. `prepare` computes S @ free
once per step, and `prepare_adjoint` applies Sᵀ to the sum of all gradients; `_write` and
`_accumulate` then apply H.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from lincon.counter import below, bits, key
from lincon.errors import DofError, LinconError
from lincon.maps import operators
from lincon.maps.per_device import forget
from lincon.maps.piece import Piece, joined
from lincon.maps.segments import NO_SEGMENTS, Segments
from lincon.recycling import Recycler
from lincon.shapes import Float, Int, Num

if TYPE_CHECKING:
    import scipy

CHUNK = 1 << 16
"""Rows that are regenerated at a time, so that temporaries stay in cache."""

SMALL = 1 << 20
"""`project` makes G dense if it has at most this many entries."""

COUNTED = 1 << 28
"""The most entries of G that are ever computed: 2 GiB, or some minutes."""

Table = tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]
"""Index and factor of every row."""

TABLE_BYTES = 1 << 20
"""The largest table that a generator keeps between calls to be faster: 1 MiB a device."""


class Generator(ABC):
    """A fixed linear map G: R^dof -> R^rows.

    A generator is a value: equal specs are equal maps, on every device and in every version. It
    owns no Parameter and no buffer. Copies are the object itself, and a pickle holds the spec.
    Tables that make it fast are cached per device and belong to neither.

    Args:
        rows: number of generated weights, the height of G; at least 1.
        dof: number of free parameters, the width of G; at least 1.
        seed: any integer.

    Raises:
        DofError: rows or dof are below 1, or dof exceeds rows and the scheme cannot use the rest.
    """

    name: ClassVar[str] = ""
    """The registered name, e.g. "ring", whatever the class is called."""
    version: ClassVar[int] = 1
    """Raised whenever the map of some spec changes by a bit."""
    allows_unused: ClassVar[bool] = False
    """Whether dof may exceed rows. No row then reads some of the entries."""
    diagonal_gram: bool = False
    """Whether GᵀG is diagonal, so that `project` has a closed form."""
    disjoint: bool = False
    """Whether a row reads at most one entry: GᵀG is then diagonal under any multipliers of rows."""
    starts_from_weights: ClassVar[bool] = False
    """Whether training starts at the projection of the model's own weights, in their own scale."""
    grain: int = 1
    """The number of rows that come together: a shorter range costs as much.

    With ``materialize="model"`` a step reduces the gradients of all smaller tensors in one call.
    """

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        if rows < 1 or dof < 1:
            raise DofError(f"{self.name}: rows={rows} and dof={dof} must both be at least 1.")
        if dof > rows and not self.allows_unused:
            raise DofError(
                f"{self.name}: dof={dof} exceeds rows={rows}; give dof <= {rows} (index generators "
                "such as ring, hash and random accept more and leave entries unused)."
            )
        self.rows, self.dof, self.seed = int(rows), int(dof), as_seed(seed)
        self._recycler = Recycler()
        self.handle = operators.handle_of(self)

    # What an author writes.

    @abstractmethod
    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        """out[:] = H[start : start + len(out)] @ prepared, without autograd.

        H is G unless `prepare` is overridden. ``prepared`` is (prepared_dof,) and has the dtype and
        device of ``out``.
        """

    @abstractmethod
    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        """out += H[start : start + len(grad)].T @ grad, with the same bits in every run.

        ``out`` is (prepared_dof,) float32 or float64.
        """

    @property
    def prepared_dof(self) -> int:
        """The length of what `prepare` returns."""
        return self.dof

    def prepare(self, free: Float[Tensor, " dof"]) -> Float[Tensor, " prepared_dof"]:
        """S @ free, the work that all ranges of rows share. By default the free vector itself."""
        return free

    def prepare_adjoint(self, total: Float[Tensor, " prepared_dof"]) -> Float[Tensor, " dof"]:
        """Sᵀ @ total, where ``total`` is what `accumulate` summed. By default ``total`` itself."""
        return total

    # What a step calls.

    def as_table(self, device: torch.device, dtype: torch.dtype) -> Table | None:
        """G of a small map with one nonzero a row: G @ free = factor * free[index]. Else None.

        None for half types, whose products and sums are taken in float32.
        Where calling a map costs more than its work, torch's own operations on this make all rows.
        """
        return None

    def write(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        """Generate the rows [start, start + n) into ``out`` and scale each segment of ``out``.

        Override this method only if one pass can do both.
        """
        self._write(out, prepared, start)
        for low, high, scale in segments:
            if scale != 1.0:
                out[low:high].mul_(scale)

    def accumulate(
        self,
        out: Float[Tensor, " prepared_dof"],
        grad: Float[Tensor, " n"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        """Scale each segment of ``grad``, and add H[start : start + n].T @ grad to ``out``."""
        if not segments:
            self._accumulate(out, grad, start)
        elif self.grain == 1:
            for low, high, scale in segments:
                part = grad[low:high].to(out.dtype) * scale if scale != 1.0 else grad[low:high]
                self._accumulate(out, part, start + low)
        else:  # a range costs as much as all rows, so all segments go in one call
            self._accumulate(out, times_segments(grad, out.dtype, segments), start)

    def accumulate_all(self, out: Float[Tensor, " prepared_dof"], pieces: Sequence[Piece]) -> None:
        """`accumulate` of some ranges of rows, in order. A kernel does all of them in one call."""
        for start, rows, segments in joined(pieces, self.grain):
            self.accumulate(out, rows, start, segments)

    def accumulator(
        self, dtype: torch.dtype, device: torch.device
    ) -> Float[Tensor, " prepared_dof"]:
        """Zeros in which gradients of ``dtype`` are summed."""
        return self._recycler.zeros(self.prepared_dof, wide_enough(dtype), device)

    def write_onto(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        origin: Float[Tensor, " n"],
        segments: Segments = NO_SEGMENTS,
    ) -> None:
        """`write`, and add ``origin``, which is like ``out``.

        Override this method only if one pass can do both.
        """
        self.write(out, prepared, start, segments)
        out.add_(origin)

    def prepared_rows(
        self,
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        stop: int,
        origin: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, " {stop-start}"]:
        """The weights of rows [start, stop) from the result of `prepare`, in its dtype.

        Rows of W₀, ``origin``, are added. Large results use recycled storage.
        """
        out = self._recycler.empty(stop - start, prepared.dtype, prepared.device)
        if origin is None:
            self.write(out, prepared, start)
        else:
            self.write_onto(out, prepared, start, origin[start:stop].to(out.dtype))
        return out

    def unpack_rows(
        self, free: Float[Tensor, " dof"], start: int, stop: int
    ) -> Float[Tensor, " n"]:
        """`unpack` without checks and without autograd."""
        prepared, table = self.prepare(free), self.as_table(free.device, free.dtype)
        if table is None or stop - start < self.rows:
            return self.prepared_rows(prepared, start, stop)
        return rows_of_table(table, prepared)

    def adjoint_of_rows(self, grad: Float[Tensor, " n"], start: int) -> Float[Tensor, " dof"]:
        """`adjoint` without checks and without autograd, in the dtype of the `accumulator`."""
        total = self.accumulator(grad.dtype, grad.device)
        table = self.as_table(grad.device, grad.dtype)
        if table is None or len(grad) < self.rows:
            self.accumulate(total, grad, start)
        else:
            index, factor = table
            total.index_add_(0, index, grad * factor)
        return self.prepare_adjoint(total)

    # What an author may override.

    def options(self) -> dict[str, Any]:
        """Constructor options beyond rows, dof and seed, as plain JSON values."""
        return {}

    def tables(self) -> dict[str, Tensor]:
        """Tensors that no seed can rebuild, by constructor argument. A model file stores them."""
        return {}

    def made_by(self, device: torch.device) -> str:
        """What makes weights on a device, for people."""
        return "torch operations"

    def work(self, rows: int) -> float | None:
        """About how many multiplications a range of so many rows takes; None if it is not counted.

        `constrain` warns of a generator that does far more than the model does with its weights.
        One that does not count its work is timed on a few rows.
        """
        return None

    def offset(self) -> Tensor | None:
        """W₀, (rows,) float64, of an affine constraint Ŵ = W₀ + G W; None if it is linear."""
        return None

    @classmethod
    def for_weights(cls, weights: Tensor, dof: int, seed: int, **options: Any) -> "Generator":
        """The generator that `constrain` asks for, given the model's present weights, (rows,).

        Schemes that learn their G from trained weights do so here. The others only count the rows.
        """
        return cls(rows=len(weights), dof=dof, seed=seed, **options)

    @classmethod
    def default_dof(cls, rows: int, options: dict[str, Any]) -> int | None:
        """The dof if the user gives none. Raises DofError unless the scheme determines it."""
        raise DofError(f"{cls.name}: give dof, an integer or a fraction of the {rows} rows.")

    # What is derived.

    def unpack(
        self,
        free: Float[Tensor, " dof"],
        start: int = 0,
        stop: int | None = None,
        *,
        dtype: torch.dtype | None = None,
        out: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Generate weights: ``G[start:stop] @ free``.

        Args:
            free: the free vector, (dof,) floating point.
            start: the first row.
            stop: the row after the last; None for all.
            dtype: the dtype of the result; None for that of ``free``.
            out: a contiguous tensor, (stop - start,), to overwrite; not differentiable.

        Returns:
            The weights, (stop - start,), differentiable to any order; ``out`` if it is given.

        Raises:
            LinconError: a shape is wrong, ``free`` is not floating point, or the rows do not exist.

        >>> import lincon
        >>> ring = lincon.generators.Ring(rows=6, dof=2, seed=0)
        >>> weights = ring.unpack(torch.tensor([1.0, 2.0]))
        >>> weights.shape, sorted(weights.abs().tolist())
        (torch.Size([6]), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
        """
        stop = self._check(free, self.dof, start, stop)
        if out is None:
            return operators.unpack(free, self.handle, (start, stop), dtype or free.dtype)
        if out.shape != (stop - start,) or not out.is_contiguous():
            raise LinconError(
                f"{self.name}: out has shape {tuple(out.shape)}; it must be contiguous "
                f"({stop - start},)."
            )
        if torch.is_grad_enabled() and free.requires_grad:
            raise LinconError(
                f"{self.name}: unpack(out=...) is not differentiable; call it under "
                "torch.no_grad()."
            )
        with torch.no_grad():
            self.write(out, self.prepare(free.to(out.dtype)), start)
        return out

    def adjoint(
        self, grad: Float[Tensor, " n"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, " dof"]:
        """Apply the transpose: ``G[start:stop].T @ grad``, differentiable.

        ``grad`` is (stop - start,), and the result, (dof,), has its dtype. Sums are taken in
        float32 (float64 for float64 input) and in the same order in every run.

        >>> import lincon
        >>> ring = lincon.generators.Ring(rows=6, dof=2, seed=0, sign=False)
        >>> ring.adjoint(torch.ones(6))  # each free number is used three times
        tensor([3., 3.])
        """
        stop = self.rows if stop is None else stop
        self._check(grad, stop - start, start, stop)
        return operators.adjoint(grad, self.handle, (start, stop), grad.dtype)

    def project(self, target: Float[Tensor, " rows"]) -> Float[Tensor, " dof"]:
        """The free vector nearest to given weights: argmin over W of ‖G W - target‖.

        If several are equally near, the result is the one of least norm. It has a closed form if
        GᵀG is diagonal. Otherwise a small G is solved densely, and a large one by LSMR (Fong and
        Saunders 2011) in float64, to a relative tolerance of 1e-10.

        >>> import lincon
        >>> lincon.generators.Identity(rows=3, dof=3).project(torch.tensor([1.0, 2.0, 3.0]))
        tensor([1., 2., 3.])
        """
        self._check(target, self.rows, 0, self.rows)
        with torch.no_grad():
            linear = target.detach().double()
            if (offset := self.offset()) is not None:
                linear = linear - offset.to(linear.device)
            if self.diagonal_gram:
                gram = self.gram_diagonal().to(linear.device)
                solution = self.adjoint(linear) / gram.where(gram > 0, torch.ones_like(gram))
            else:
                solution = torch.from_numpy(self._least_squares(linear.cpu().numpy()))
            return solution.to(target)

    def _least_squares(self, target: np.ndarray) -> np.ndarray:
        import scipy

        if self.rows * self.dof <= SMALL:
            solution = scipy.linalg.lstsq(self.dense().numpy(), target, cond=1e-12)
        else:
            solution = scipy.sparse.linalg.lsmr(
                self.operator(), target, atol=1e-10, btol=1e-10, maxiter=4 * self.dof + 100
            )
        free: np.ndarray = solution[0]
        return free

    def gram_diagonal(self, weights: Num[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        """diag(Gᵀ diag(weights) G), (dof,) float64. ``weights`` are (rows,), ones by default.

        For generators with one non-zero a row it counts the uses of each entry. The default goes
        through all of G, row by row or column by column, whichever is less work.

        Raises:
            LinconError: G has more than `COUNTED` entries.
        """
        if self.rows * self.dof > COUNTED:
            raise LinconError(
                f"{self.name}: adding up the norms of {self.dof} columns of {self.rows} entries "
                "each takes too long: leave out scale='isometric', gradient='gram' or 'mean' "
                "(or write gram_diagonal)."
            )
        if self.grain >= self.dof:
            return torch.stack([self._square_sum(column, weights) for column in range(self.dof)])
        total = torch.zeros(self.dof, dtype=torch.float64, device="cpu")
        for start, stop in chunks(0, self.rows, max(1, CHUNK // self.dof)):
            block = self._rows(start, stop)
            scale = 1 if weights is None else weights[start:stop, None].double().cpu()
            total += (block * block * scale).sum(0)
        return total

    def energy(self, start: int, stop: int) -> float:
        """The mean squared norm of rows [start, stop) of G, in expectation over seeds.

        A generated weight has this times the variance of W. The default counts by `gram_diagonal`.
        """
        inside = torch.zeros(self.rows, dtype=torch.float64, device="cpu")
        inside[start:stop] = 1
        return float(self.gram_diagonal(inside).sum()) / max(1, stop - start)

    def unused(self) -> int:
        """The number of free entries that no row reads."""
        return int((self.gram_diagonal() == 0).sum())

    def spec(self) -> dict[str, Any]:
        """Plain JSON. `lincon.generators.build` makes an equal generator of it and `tables`."""
        spec = {
            "name": self.name,
            "version": self.version,
            "rows": self.rows,
            "dof": self.dof,
            "seed": self.seed,
            "options": self.options(),
        }
        return {**spec, "digest": self._digest} if self.tables() else spec

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of the tables' names, types, shapes and bytes."""
        sha = hashlib.sha256()
        for name, table in sorted(self.tables().items()):
            sha.update(f"{name} {table.dtype} {tuple(table.shape)}".encode())
            sha.update(table.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def fingerprint(self) -> str:
        """32 hex digits from sampled rows of G. They tell whether two builds make the same G."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        probe = (
            below(bits(key(0, 101), torch.arange(self.dof, device="cpu")), 2001).sub_(1000).double()
        )
        starts = below(
            bits(key(0, 102), torch.arange(64, device="cpu")), min(self.rows, 1 << 31)
        ).tolist()
        digest = hashlib.sha256(f"{self.rows}x{self.dof}".encode())
        # Sums that cancel count as zero, whatever the order of addition.
        noise = 1e-9 * float(probe.abs().sum())
        for start in sorted({0, *starts}):
            values = self.unpack(probe, start, min(start + 16, self.rows))
            values = torch.where(values.abs() < noise, 0.0, values)
            digest.update("".join(f"{value:.6e};" for value in values.tolist()).encode())
        return digest.hexdigest()[:32]

    def operator(self) -> "scipy.sparse.linalg.LinearOperator":
        """G as a scipy LinearOperator, (rows, dof) float64 on the CPU."""
        import scipy

        def apply(function: Any, x: np.ndarray) -> np.ndarray:
            vector = torch.from_numpy(np.ascontiguousarray(x.reshape(-1), np.float64))
            result: np.ndarray = function(vector).numpy()
            return result

        return scipy.sparse.linalg.LinearOperator(
            (self.rows, self.dof),
            matvec=lambda x: apply(self.unpack, x),
            rmatvec=lambda x: apply(self.adjoint, x),
            dtype=np.float64,
        )

    def dense(self) -> Tensor:
        """G itself, (rows, dof) float64. Raises LinconError above `COUNTED` entries."""
        if self.rows * self.dof > COUNTED:
            raise LinconError(
                f"{self.name}: a dense G of {self.rows} x {self.dof} would not fit; use operator()."
            )
        return self._rows(0, self.rows)

    def sparse(self) -> "scipy.sparse.csr_array":
        """G as a scipy CSR array, (rows, dof) float64. The default goes through `dense`."""
        import scipy

        return scipy.sparse.csr_array(self.dense().numpy())

    def _square_sum(self, column: int, weights: Tensor | None) -> Tensor:
        one = torch.zeros(self.dof, dtype=torch.float64, device="cpu")
        one[column] = 1
        squares = self.unpack(one).square_()
        return (squares if weights is None else squares * weights.double().cpu()).sum()

    def _rows(self, start: int, stop: int) -> Tensor:
        """G[start:stop], (stop - start, dof) float64, by columns or rows, whichever are fewer."""
        if self.dof <= stop - start:
            return torch.stack(
                [self.unpack(e, start, stop) for e in torch.eye(self.dof, dtype=torch.float64)], 1
            )
        eye = torch.eye(stop - start, dtype=torch.float64)
        return torch.stack([self.adjoint(e, start, stop) for e in eye])

    def _check(self, vector: Tensor, length: int, start: int, stop: int | None) -> int:
        stop = self.rows if stop is None else stop
        if not 0 <= start <= stop <= self.rows:
            raise LinconError(f"{self.name}: rows {start}:{stop} are not within 0:{self.rows}.")
        if vector.shape != (length,) or not vector.is_floating_point():
            raise LinconError(
                f"{self.name}: expected a floating-point vector of shape ({length},), "
                f"got {tuple(vector.shape)} {vector.dtype}."
            )
        return stop

    def release(self) -> None:
        """Let go of the tables and buffers that make the map fast.

        They are made again where they are needed. `lincon.kernels.release` does the same for GPUs.
        """
        self.rest()
        forget(self)
        for inner in self._inner():
            inner.release()

    def rest(self) -> None:
        """Let go of the buffers that are used again by the next call."""
        self._recycler.release()
        for inner in self._inner():
            inner.rest()

    def _inner(self) -> list["Generator"]:
        """The generators that this one changes."""
        return [each for each in vars(self).values() if isinstance(each, Generator)]

    # A generator is a value.

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            type(self),
            self.rows,
            self.dof,
            self.seed,
            {**self.options(), **self.tables()},
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Generator) and self.spec() == other.spec()

    def __hash__(self) -> int:
        return hash(json.dumps(self.spec(), sort_keys=True))

    def __repr__(self) -> str:
        options = "".join(f", {k}={v!r}" for k, v in self.options().items())
        return f"{type(self).__name__}(rows={self.rows}, dof={self.dof}, seed={self.seed}{options})"


def rows_of_table(table: Table, free: Float[Tensor, " dof"]) -> Float[Tensor, " rows"]:
    """factor * free[index], by operations that autograd knows."""
    index, factor = table
    return free.index_select(0, index).mul_(factor)


def chunks(start: int, stop: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) into consecutive ranges of at most ``size``."""
    return ((low, min(low + size, stop)) for low in range(start, stop, size))


def times_segments(
    grad: Float[Tensor, " n"], dtype: torch.dtype, segments: Segments
) -> Float[Tensor, " n"]:
    """A copy of ``grad`` in ``dtype``, in which each segment is multiplied by its scale."""
    scaled = grad.to(dtype, copy=True)
    for low, high, scale in segments:
        scaled[low:high].mul_(scale)
    return scaled


def wide_enough(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which gradients of ``dtype`` are summed: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_seed(seed: Any) -> int:
    """An integer of Python, NumPy or torch as a Python int."""
    try:
        return index(seed)
    except TypeError:
        raise LinconError(f"seed={seed!r}; it must be an integer.") from None


def _rebuild(
    cls: type[Generator], rows: int, dof: int, seed: int, options: dict[str, Any]
) -> Generator:
    return cls(rows=rows, dof=dof, seed=seed, **options)
