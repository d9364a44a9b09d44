"""The abstract generator: a fixed linear map G that is computed, never learned and never stored.

An implementation says what G does to a range of rows, twice: `_write` (G[start:stop] @ free) and `_accumulate`
(+= G[start:stop].T @ grad). Everything else (autograd, projection, spec, fingerprint, operators) is derived here.
Where a part of the work is on the free vector, whatever rows are asked for, G = H S, `_spread` (S free) and `_gather`
(Sᵀ total) have it, and the two others are those of H: a step that asks for many ranges does it once.
The two directions are a pair of torch operators, each the derivative of the other, so gradients of any order, forward
mode, `torch.func` and `torch.compile(fullgraph=True)` see a linear map and never trace into it.
"""

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from operator import index
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

import numpy as np
import scipy  # its parts are imported at first use: half of lincon's import time otherwise
import torch
from torch import Tensor

from lincon.counter import below, bits, key
from lincon.errors import DofError, LinconError
from lincon.recycling import Recycler

Segments = list[tuple[int, int, float]]
"""Consecutive ranges of rows (low, high), each with a multiplier."""

CHUNK = 1 << 16
"""Rows handled at a time where G is regenerated: temporaries stay in cache."""

SMALL = 1 << 20
"""Entries up to which G is made dense to project."""

COUNTED = 1 << 28
"""Entries of G up to which all of them are made: 2 GiB, or some minutes."""

TABLE_BYTES = 1 << 20
"""A table that speeds up a generator is kept between calls if it is no larger than this (1 MiB a device)."""


class Generator(ABC):
    """A fixed linear map G: R^dof -> R^rows. A value: equal specs are equal maps, on every device, for ever.

    Args:
        rows: number of generated weights, the height of G; at least 1.
        dof: number of free parameters, the width of G; at least 1.
        seed: any integer.

    Raises:
        DofError: rows or dof below 1, or more dof than rows where the scheme has no use for them.

    Owns no Parameter and no buffer. Copies are the object itself, a pickle is the spec; tables that make it fast
    are a cache per device in neither.
    """

    name: ClassVar[str]
    """The registered name, e.g. "ring"."""
    version: ClassVar[int] = 1
    """Raised whenever the map of some spec changes by a bit."""
    allows_unused: ClassVar[bool] = False
    """Whether dof may exceed rows (entries are then left without a row)."""
    diagonal_gram: bool = False
    """Whether GᵀG is diagonal, so that `project` has a closed form."""
    disjoint: ClassVar[bool] = False
    """Whether no row reads two entries, so that GᵀG is diagonal under any multipliers of the rows."""
    starts_from_weights: ClassVar[bool] = False
    """Whether a model constrained by it starts at the projection of its own weights, in their own scale."""
    grain: int = 1
    """Rows that come together: a range of fewer costs as much. A step has the adjoint of all smaller tensors at once,
    where the weights are generated at once too (``materialize="model"``)."""

    def __init__(self, rows: int, dof: int, seed: int = 0) -> None:
        if rows < 1 or dof < 1:
            raise DofError(f"{self.name}: rows={rows} and dof={dof} must both be at least 1.")
        if dof > rows and not self.allows_unused:
            raise DofError(
                f"{self.name}: dof={dof} exceeds rows={rows}; give dof <= {rows} "
                "(index generators such as ring, hash and random accept more and leave entries unused)."
            )
        self.rows, self.dof, self.seed = int(rows), int(dof), as_seed(seed)
        self._recycler = Recycler()
        self._handle = str(next(_handles))
        _live[self._handle] = self

    # What an implementation says.

    @abstractmethod
    def _write(self, out: Tensor, free: Tensor, start: int) -> None:
        """out[:] = H[start : start + len(out)] @ free. ``out`` and ``free`` share dtype and device; no autograd.

        ``free``: (spread_dof,), what `_spread` made of the free vector; H is G where there is no `_spread`.
        """

    @abstractmethod
    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        """out += H[start : start + len(grad)].T @ grad. ``out``: (spread_dof,) float32 or float64.

        The same bits run to run.
        """

    @property
    def spread_dof(self) -> int:
        """The length of what `_spread` makes."""
        return self.dof

    def _spread(self, free: Tensor) -> Tensor:
        """S free: (dof,) -> (spread_dof,), once for all ranges of rows. The default is the free vector itself."""
        return free

    def _gather(self, total: Tensor) -> Tensor:
        """Sᵀ total: (spread_dof,), what all of `_accumulate` added up, -> (dof,)."""
        return total

    def _write_scaled(self, out: Tensor, free: Tensor, start: int, segments: Segments) -> None:
        """`_write`, then each (low, high, scale) of ``out`` times its scale. Overridden where one pass does both."""
        self._write(out, free, start)
        for low, high, scale in segments:
            if scale != 1.0:
                out[low:high].mul_(scale)

    def _accumulate_scaled(self, out: Tensor, grad: Tensor, start: int, segments: Segments) -> None:
        """`_accumulate` of ``grad`` with each (low, high, scale) of it times its scale."""
        if self.grain == 1:
            for low, high, scale in segments:
                part = grad[low:high].to(out.dtype) * scale if scale != 1.0 else grad[low:high]
                self._accumulate(out, part, start + low)
            return
        scaled = grad.to(out.dtype, copy=True)
        for low, high, scale in segments:
            scaled[low:high].mul_(scale)
        self._accumulate(out, scaled, start)

    def accumulator(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Zeros (spread_dof,) in which gradients of ``dtype`` are summed."""
        return self._recycler.empty(self.spread_dof, wide_enough(dtype), device).zero_()

    def rows_of(self, spread: Tensor, start: int, stop: int) -> Tensor:
        """The weights of rows [start, stop) from what `_spread` made, in its type; of recycled storage."""
        out = self._recycler.empty(stop - start, spread.dtype, spread.device)
        self._write(out, spread, start)
        return out

    def options(self) -> dict[str, Any]:
        """Constructor options beyond rows, dof and seed, as plain JSON values."""
        return {}

    def tables(self) -> dict[str, Tensor]:
        """What no seed can rebuild, by constructor argument: stored in the model's file. Empty for most."""
        return {}

    def offset(self) -> Tensor | None:
        """W₀ (rows,) of an affine constraint Ŵ = W₀ + G W, float64; None for a linear one."""
        return None

    @classmethod
    def for_weights(cls, weights: Tensor, dof: int, seed: int, **options: Any) -> "Generator":
        """The generator that `constrain` asks for; ``weights``: (rows,), what the model holds now.

        Schemes that learn their G from trained weights do it here; the others look at the number of rows alone.
        """
        return cls(rows=len(weights), dof=dof, seed=seed, **options)

    @classmethod
    def default_dof(cls, rows: int, options: dict[str, Any]) -> int | None:
        """The dof when none is asked for; refused unless the scheme itself says it."""
        raise DofError(f"{cls.name}: give dof, an integer or a fraction of the {rows} rows.")

    # What follows from it.

    def unpack(
        self,
        free: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        dtype: torch.dtype | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Generate weights: ``G[start:stop] @ free``.

        Args:
            free: (dof,) floating point.
            start, stop: range of rows; the default is all.
            dtype: of the result; the default is free's.
            out: (stop - start,) contiguous, to be overwritten; not differentiable.

        Returns:
            (stop - start,), differentiable to any order (or ``out``).
        """
        stop = self._check(free, self.dof, start, stop)
        if out is None:
            return _Unpack.on(free, self._handle, start, stop, dtype or free.dtype)
        if out.shape != (stop - start,) or not out.is_contiguous():
            raise LinconError(
                f"{self.name}: out has shape {tuple(out.shape)}; it must be contiguous ({stop - start},)."
            )
        if torch.is_grad_enabled() and free.requires_grad:
            raise LinconError(
                f"{self.name}: unpack(out=...) is not differentiable; call it under torch.no_grad()."
            )
        with torch.no_grad():
            self._write(out, self._spread(free.to(out.dtype)), start)
        return out

    def adjoint(self, grad: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """The transpose: ``G[start:stop].T @ grad``. ``grad``: (stop - start,) -> (dof,), differentiable.

        Accumulates in float32 (float64 for float64 input), deterministically, and returns grad's dtype.
        """
        stop = self.rows if stop is None else stop
        self._check(grad, stop - start, start, stop)
        return _Adjoint.on(grad, self._handle, start, stop, grad.dtype)

    def project(self, target: Tensor) -> Tensor:
        """The free vector nearest to given weights: argmin over W of ‖G W - target‖ (of least norm).

        ``target``: (rows,) -> (dof,), same dtype and device. Closed form where GᵀG is diagonal, else LSMR
        (Fong and Saunders 2011) in float64 to a relative tolerance of 1e-10, or dense where G is small.
        """
        self._check(target, self.rows, 0, self.rows)
        with torch.no_grad():
            wanted = target.detach().double()
            if (offset := self.offset()) is not None:
                wanted = wanted - offset.to(wanted.device)
            if self.diagonal_gram:
                gram = self.gram_diagonal().to(wanted.device)
                solution = self.adjoint(wanted) / gram.where(gram > 0, torch.ones_like(gram))
            elif self.rows * self.dof <= SMALL:
                dense = self.dense().numpy()
                solution = torch.from_numpy(
                    scipy.linalg.lstsq(dense, wanted.cpu().numpy(), cond=1e-12)[0]
                )
            else:
                answer = scipy.sparse.linalg.lsmr(
                    self.operator(),
                    wanted.cpu().numpy(),
                    atol=1e-10,
                    btol=1e-10,
                    maxiter=4 * self.dof + 100,
                )
                solution = torch.from_numpy(answer[0])
            return solution.to(target)

    def gram_diagonal(self, weights: Tensor | None = None) -> Tensor:
        """diag(Gᵀ diag(weights) G): (dof,) float64; ``weights``: (rows,), ones by default.

        For one-nonzero generators the number of uses of each entry. The default goes through all of G, row by row, or
        column by column where that is less work; it raises LinconError above `COUNTED` entries.
        """
        if self.rows * self.dof > COUNTED:
            raise LinconError(
                f"{self.name}: the norms of its {self.dof} columns would be added up from {self.rows} entries each, "
                "which takes too long: leave out scale='isometric', gradient='gram' or 'mean' (or write gram_diagonal)."
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
        """Mean over rows [start, stop) of the squared norm of a row of G, in expectation over seeds.

        The variance of a generated weight is this times that of W. The default counts, by `gram_diagonal`.
        """
        inside = torch.zeros(self.rows, dtype=torch.float64, device="cpu")
        inside[start:stop] = 1
        return float(self.gram_diagonal(inside).sum()) / max(1, stop - start)

    def unused(self) -> int:
        """How many free entries no row reads."""
        return int((self.gram_diagonal() == 0).sum())

    def spec(self) -> dict[str, Any]:
        """Plain JSON from which `lincon.generators.build` makes an equal generator (with `tables`, if any)."""
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
        """32 hex digits of G itself, from sampled rows: differs if this build of lincon makes another G."""
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
            return function(
                torch.from_numpy(np.ascontiguousarray(x.reshape(-1), np.float64))
            ).numpy()

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
        """G[start:stop], (stop - start, dof) float64, column by column or row by row, whichever is shorter."""
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


# The pair of operators, opaque to compilers. A generator is passed by a handle, a string that they treat as a constant.

_handles = itertools.count()
_live: WeakValueDictionary[str, Generator] = WeakValueDictionary()


@torch.library.custom_op("lincon::unpack", mutates_args=())
def _unpack(free: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    g = _live[generator]
    return g.rows_of(g._spread(free.to(dtype)), start, stop)


@torch.library.custom_op("lincon::adjoint", mutates_args=())
def _adjoint(grad: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    g = _live[generator]
    out = g.accumulator(grad.dtype, grad.device)
    g._accumulate(out, grad.contiguous(), start)
    return g._gather(out).to(dtype)


@_unpack.register_fake
def _(free: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    return free.new_empty(stop - start, dtype=dtype)


@_adjoint.register_fake
def _(grad: Tensor, generator: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    return grad.new_empty(_live[generator].dof, dtype=dtype)


_is_exporting = getattr(
    torch.compiler, "is_exporting", lambda: False
)  # newer than the oldest torch allowed


class _Linear(torch.autograd.Function):
    """Applies one operator; its derivative is the other. Arguments: vector, handle, start, stop, result's dtype."""

    @classmethod
    def on(cls, vector: Tensor, *where: Any) -> Tensor:
        if _is_exporting():
            raise LinconError(
                "A constrained model cannot be exported: its G lives in this process. lincon.merge it first."
            )
        function = cls if torch.compiler.is_compiling() else _FORWARD_MODE[cls]
        return function.apply(vector, *where)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        vector, *ctx.where, ctx.out = inputs
        ctx.dtype = vector.dtype


class _Unpack(_Linear):
    @staticmethod
    def forward(vector: Tensor, handle: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return torch.ops.lincon.unpack(vector, handle, start, stop, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Adjoint.on(grad, *ctx.where, ctx.dtype), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], batch: Tensor, *args: Any) -> tuple[Tensor, int]:
        return torch.stack([_Unpack.on(x, *args) for x in batch.movedim(in_dims[0], 0)]), 0


class _Adjoint(_Linear):
    @staticmethod
    def forward(vector: Tensor, handle: str, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return torch.ops.lincon.adjoint(vector, handle, start, stop, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _Unpack.on(grad, *ctx.where, ctx.dtype), None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], batch: Tensor, *args: Any) -> tuple[Tensor, int]:
        return torch.stack([_Adjoint.on(x, *args) for x in batch.movedim(in_dims[0], 0)]), 0


class _UnpackForwardMode(_Unpack):
    """With forward-mode derivatives, which compilers refuse to trace."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _Unpack.on(tangent, *ctx.where, ctx.out)


class _AdjointForwardMode(_Adjoint):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        return _Adjoint.on(tangent, *ctx.where, ctx.out)


_FORWARD_MODE: dict[type[_Linear], type[_Linear]] = {
    _Unpack: _UnpackForwardMode,
    _Adjoint: _AdjointForwardMode,
}
