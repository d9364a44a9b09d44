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
from typing import Any, ClassVar, Self

import numpy as np
import scipy  # its parts are imported at first use: half of lincon's import time otherwise
import torch
from jaxtyping import Float, Num
from torch import Tensor

from lincon.counter import below, bits, key
from lincon.errors import DofError, LinconError
from lincon.maps import operators
from lincon.recycling import Recycler

Segments = Sequence[tuple[int, int, float]]
"""Consecutive ranges of rows (low, high), each with a multiplier."""

CHUNK = 1 << 16
"""Rows handled at a time where G is regenerated: temporaries stay in cache."""

SMALL = 1 << 20
"""Entries up to which G is made dense to project."""

COUNTED = 1 << 28
"""Entries of G up to which all of them are made: 2 GiB, or some minutes."""

TABLE_BYTES = 1 << 20
"""A table that speeds up a generator is kept between calls if it is no larger than this (1 MiB a
device)."""


class Generator(ABC):
    """A fixed linear map G: R^dof -> R^rows. A value: equal specs are equal maps, on every device,
    for ever.

    Args:
        rows: number of generated weights, the height of G; at least 1.
        dof: number of free parameters, the width of G; at least 1.
        seed: any integer.

    Raises:
        DofError: rows or dof below 1, or more dof than rows where the scheme has no use for them.

    Owns no Parameter and no buffer. Copies are the object itself, a pickle is the spec; tables that
    make it fast are a cache per device in neither.
    """

    name: ClassVar[str]
    """The registered name, e.g. "ring"."""
    version: ClassVar[int] = 1
    """Raised whenever the map of some spec changes by a bit."""
    allows_unused: ClassVar[bool] = False
    """Whether dof may exceed rows (entries are then left without a row)."""
    diagonal_gram: bool = False
    """Whether GᵀG is diagonal, so that `project` has a closed form."""
    disjoint: bool = False
    """Whether no row reads two entries, so that GᵀG is diagonal under any multipliers of the rows."""
    starts_from_weights: ClassVar[bool] = False
    """Whether a model constrained by it starts at the projection of its own weights, in their own
    scale."""
    grain: int = 1
    """Rows that come together: a range of fewer costs as much. A step has the adjoint of all
    smaller tensors at once, where the weights are generated at once too
    (``materialize="model"``)."""

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        if rows < 1 or dof < 1:
            raise DofError(f"{self.name}: rows={rows} and dof={dof} must both be at least 1.")
        if dof > rows and not self.allows_unused:
            raise DofError(
                f"{self.name}: dof={dof} exceeds rows={rows}; give dof <= {rows} "
                "(index generators such as ring, hash and random accept more and leave entries "
                "unused)."
            )
        self.rows, self.dof, self.seed = int(rows), int(dof), as_seed(seed)
        self._recycler = Recycler()
        self.handle = operators.handle_of(self)

    # What an author writes.

    @abstractmethod
    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        """out[:] = H[start : start + len(out)] @ prepared, where H is G unless `prepare` is
        overridden.

        ``prepared``: (prepared_dof,), of the dtype and device of ``out``. No autograd is recorded.
        """

    @abstractmethod
    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        """out += H[start : start + len(grad)].T @ grad, the same bits run to run.

        ``out``: (prepared_dof,) float32 or float64.
        """

    @property
    def prepared_dof(self) -> int:
        """The length of what `prepare` returns."""
        return self.dof

    def prepare(self, free: Float[Tensor, " dof"]) -> Float[Tensor, " prepared_dof"]:
        """S @ free, the work that is the same for all ranges of rows. The default is the free
        vector itself."""
        return free

    def prepare_adjoint(self, total: Float[Tensor, " prepared_dof"]) -> Float[Tensor, " dof"]:
        """Sᵀ @ total, where ``total`` is the sum of all that `accumulate` added. The default is
        ``total``."""
        return total

    # What a step calls.

    def write(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        segments: Segments = (),
    ) -> None:
        """Generate the rows [start, start + n) into ``out``; then multiply each segment of ``out``
        by its scale.

        Override it only where one pass does both.
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
        segments: Segments = (),
    ) -> None:
        """Add Hᵀ of the rows [start, start + n) to ``out``, with each segment of ``grad`` times its
        scale."""
        if not segments:
            self._accumulate(out, grad, start)
        elif self.grain == 1:
            for low, high, scale in segments:
                part = grad[low:high].to(out.dtype) * scale if scale != 1.0 else grad[low:high]
                self._accumulate(out, part, start + low)
        else:  # a range costs as much as all rows, so all segments go in one call
            self._accumulate(out, times_segments(grad, out.dtype, segments), start)

    def accumulator(
        self, dtype: torch.dtype, device: torch.device
    ) -> Float[Tensor, " prepared_dof"]:
        """Zeros in which gradients of ``dtype`` are summed."""
        return self._recycler.empty(self.prepared_dof, wide_enough(dtype), device).zero_()

    def prepared_rows(
        self, prepared: Float[Tensor, " prepared_dof"], start: int, stop: int
    ) -> Float[Tensor, " {stop-start}"]:
        """The weights of rows [start, stop) from what `prepare` returned, in its dtype.

        They are in recycled storage where they are large.
        """
        out = self._recycler.empty(stop - start, prepared.dtype, prepared.device)
        self.write(out, prepared, start)
        return out

    def unpack_rows(self, free: Tensor, start: int, stop: int) -> Tensor:
        """`unpack` without checks and without autograd."""
        return self.prepared_rows(self.prepare(free), start, stop)

    def adjoint_of_rows(self, grad: Tensor, start: int) -> Tensor:
        """`adjoint` without checks and without autograd, in the dtype of the `accumulator`."""
        total = self.accumulator(grad.dtype, grad.device)
        self.accumulate(total, grad, start)
        return self.prepare_adjoint(total)

    # What an author may say besides.

    def options(self) -> dict[str, Any]:
        """Constructor options beyond rows, dof and seed, as plain JSON values."""
        return {}

    def tables(self) -> dict[str, Tensor]:
        """What no seed can rebuild, by constructor argument; the model's file stores it."""
        return {}

    def offset(self) -> Tensor | None:
        """W₀ (rows,) of an affine constraint Ŵ = W₀ + G W, float64; None for a linear one."""
        return None

    @classmethod
    def for_weights(cls, weights: Tensor, dof: int, seed: int, **options: Any) -> "Generator":
        """The generator that `constrain` asks for; ``weights``: (rows,), what the model holds now.

        Schemes that learn their G from trained weights do it here; the others look at the number of
        rows alone.
        """
        return cls(rows=len(weights), dof=dof, seed=seed, **options)

    @classmethod
    def default_dof(cls, rows: int, options: dict[str, Any]) -> int | None:
        """The dof when none is asked for; refused unless the scheme itself says it."""
        raise DofError(f"{cls.name}: give dof, an integer or a fraction of the {rows} rows.")

    # What follows.

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
            free: (dof,) floating point.
            start, stop: range of rows; the default is all.
            dtype: of the result; the default is free's.
            out: (stop - start,) contiguous, to be overwritten; not differentiable.

        Returns:
            (stop - start,), differentiable to any order (or ``out``).

        Raises:
            LinconError: another shape, no floating point, or rows that do not exist.

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

        ``grad``: (stop - start,). Sums are in float32 (float64 for float64 input), in the same order
        run to run; the result has grad's dtype.

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

        Where several are nearest, the one of least norm. In closed form where GᵀG is diagonal; dense
        where G is small; else by LSMR (Fong and Saunders 2011) in float64, to a relative tolerance of
        1e-10.

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
        if self.rows * self.dof <= SMALL:
            solution = scipy.linalg.lstsq(self.dense().numpy(), target, cond=1e-12)
        else:
            solution = scipy.sparse.linalg.lsmr(
                self.operator(), target, atol=1e-10, btol=1e-10, maxiter=4 * self.dof + 100
            )
        free: np.ndarray = solution[0]
        return free

    def gram_diagonal(self, weights: Num[Tensor, " rows"] | None = None) -> Float[Tensor, " dof"]:
        """diag(Gᵀ diag(weights) G): (dof,) float64; ``weights``: (rows,), ones by default.

        For one-nonzero generators the number of uses of each entry. The default goes through all of
        G, row by row, or column by column where that is less work; it raises LinconError above
        `COUNTED` entries.
        """
        if self.rows * self.dof > COUNTED:
            raise LinconError(
                f"{self.name}: the norms of its {self.dof} columns would be added up from "
                f"{self.rows} entries each, which takes too long: leave out scale='isometric', "
                "gradient='gram' or 'mean' (or write gram_diagonal)."
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
        """The squared norm of a row of G, its mean over rows [start, stop), expected over seeds.

        The variance of a generated weight is this times that of W. The default counts, by
        `gram_diagonal`.
        """
        inside = torch.zeros(self.rows, dtype=torch.float64, device="cpu")
        inside[start:stop] = 1
        return float(self.gram_diagonal(inside).sum()) / max(1, stop - start)

    def unused(self) -> int:
        """How many free entries no row reads."""
        return int((self.gram_diagonal() == 0).sum())

    def spec(self) -> dict[str, Any]:
        """Plain JSON from which `lincon.generators.build` makes an equal generator (with `tables`,
        if any)."""
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
        """32 hex digits of G itself, from sampled rows: differs if this build of lincon makes
        another G."""
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
        noise = 1e-9 * float(
            probe.abs().sum()
        )  # sums that cancel are zero, whatever the order they were added in
        for start in sorted({0, *starts}):
            values = self.unpack(probe, start, min(start + 16, self.rows))
            values = torch.where(values.abs() < noise, 0.0, values)
            digest.update("".join(f"{value:.6e};" for value in values.tolist()).encode())
        return digest.hexdigest()[:32]

    def operator(self) -> "scipy.sparse.linalg.LinearOperator":
        """G as a scipy LinearOperator, (rows, dof) float64 on the CPU."""

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
        """G itself, (rows, dof) float64. For small ones: refused above `COUNTED` entries."""
        if self.rows * self.dof > COUNTED:
            raise LinconError(
                f"{self.name}: a dense G of {self.rows} x {self.dof} would not fit; use operator()."
            )
        return self._rows(0, self.rows)

    def sparse(self) -> "scipy.sparse.csr_array":
        """G as a scipy CSR array, (rows, dof) float64. The default goes through `dense`."""
        return scipy.sparse.csr_array(self.dense().numpy())

    def _square_sum(self, column: int, weights: Tensor | None) -> Tensor:
        one = torch.zeros(self.dof, dtype=torch.float64, device="cpu")
        one[column] = 1
        squares = self.unpack(one).square_()
        return (squares if weights is None else squares * weights.double().cpu()).sum()

    def _rows(self, start: int, stop: int) -> Tensor:
        """G[start:stop], (stop - start, dof) float64, column by column or row by row, whichever is
        shorter."""
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


def chunks(start: int, stop: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) into consecutive ranges of at most ``size``."""
    return ((low, min(low + size, stop)) for low in range(start, stop, size))


def times_segments(grad: Tensor, dtype: torch.dtype, segments: Segments) -> Tensor:
    """A copy of ``grad``, in ``dtype``, with each segment times its scale."""
    scaled = grad.to(dtype, copy=True)
    for low, high, scale in segments:
        scaled[low:high].mul_(scale)
    return scaled


def wide_enough(dtype: torch.dtype) -> torch.dtype:
    """What gradients of ``dtype`` are summed in: float64 for float64, float32 for all narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def as_seed(seed: Any) -> int:
    """Any integer, also NumPy's or torch's, as one of Python's."""
    try:
        return index(seed)
    except TypeError:
        raise LinconError(f"seed={seed!r}; it must be an integer.") from None


def _rebuild(
    cls: type[Generator], rows: int, dof: int, seed: int, options: dict[str, Any]
) -> Generator:
    return cls(rows=rows, dof=dof, seed=seed, **options)
