"""A summary of a constrained model: `summary`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from lincon.attaching.constraint import Constraint, owned
from lincon.attaching.cost import USES, Cost, at_a_time, cost_of
from lincon.attaching.free_vector import FreeVector
from lincon.files.saving import file_bytes
from lincon.generator import Generator
from lincon.tables import Table


@dataclass(frozen=True)
class Line:
    """One generated tensor: its name, shape, generator, multiplier and the free vector it reads."""

    name: str
    shape: tuple[int, ...]
    generator: str
    scale: float
    free: str


@dataclass(frozen=True, repr=False)
class Summary:
    """A table, which shows itself in a terminal and in a notebook; sizes are in bytes.

    Attributes:
        lines: one line for each generated tensor.
        dof: the length of the free vectors.
        rows: the number of generated weights.
        unconstrained: the number of parameters that are neither generated nor free.
        unused: the number of free entries that no row reads.
        resident: bytes of parameters, buffers and tables that stay in memory.
        kept: bytes that stay in memory now so that the next step or forward is faster;
            `Constraint.release` lets go of them.
        dense: bytes of parameters and buffers of the merged model.
        file: bytes of the file that `lincon.save` writes; None if the model cannot be saved as it
            is, or is sharded.
        residual: the relative residual of the last projection, or None.
        made_by: what makes the weights: compiled kernels, torch operations, or both.
        cost: the multiplications by which a forward makes the weights (see
            `lincon.attaching.cost`), or None if it is not known.
    """

    lines: tuple[Line, ...]
    dof: int
    rows: int
    unconstrained: int
    unused: int
    resident: int
    kept: int
    dense: int
    file: int | None
    residual: float | None
    made_by: tuple[str, ...] = ()
    cost: Cost | None = None

    @property
    def total(self) -> int:
        """The DoF and all unconstrained parameters together."""
        return self.dof + self.unconstrained

    def __str__(self) -> str:
        width = max([len(line.name) for line in self.lines], default=6)
        table = [f"{'tensor':<{width}}  {'shape':>20}  {'scale':>9}  free vector <- generator"]
        for line in self.lines:
            shape = " x ".join(map(str, line.shape))
            source = f"{line.free} <- {line.generator}"
            table.append(f"{line.name:<{width}}  {shape:>20}  {line.scale:>9.4g}  {source}")
        totals = [
            f"{name:<14} {number:>14}  {about}".rstrip() for name, number, about in self._totals()
        ]
        totals += [f"made by        {each}" for each in self.made_by]
        return "\n".join([*table, "", *totals])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = [
            (line.name, " × ".join(map(str, line.shape)), f"{line.scale:.4g}", line.generator)
            for line in self.lines
        ]
        tensors = Table("", ("tensor", "shape", "scale", "generator"), lines)
        counts = Table("", ("", "", ""), list(self._totals()), self.made_by)
        return tensors.html() + counts.html()

    def _totals(self) -> Iterator[tuple[str, str, str]]:
        """What is counted, the number, and what it means."""
        per_parameter = self.rows / max(1, self.dof)
        yield "dof", f"{self.dof:,}", f"({self.unused:,} unused)"
        yield "generated rows", f"{self.rows:,}", f"({per_parameter:.2f} per free parameter)"
        yield "unconstrained", f"{self.unconstrained:,}", ""
        yield "total", f"{self.total:,}", ""
        yield "resident bytes", f"{self.resident:,}", f"(merged: {self.dense:,})"
        if self.kept:
            yield "kept bytes", f"{self.kept:,}", "(to be fast, until released)"
        if self.file is not None:
            yield "file bytes", f"{self.file:,}", ""
        if self.residual is not None:
            yield "residual", f"{self.residual:.4g}", "(of the last projection, relative)"
        if self.cost is not None:
            yield "made in", str(self.cost), f"at a batch of {USES}"


def summary(model: nn.Module) -> Summary:
    """Count everything in a model, constrained or not. Every free vector counts once.

    >>> import lincon
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> counts = lincon.summary(model)
    >>> counts.dof, counts.rows, counts.total
    (16, 32, 20)
    """
    placed = owned(model)
    vectors = [vector for _, constraint in placed for vector in constraint.vectors]
    generators = [vector.group.generator for vector in vectors]
    free = _by_identity([v.parameter for v in vectors] + [v.steps for v in vectors])
    origins = _by_identity(_buffered_origin(vector) for vector in vectors)
    own = _bytes([*model.parameters(), *model.buffers()])
    replaced = _bytes(free.values()) + _bytes(origins.values())
    tables = _table_bytes(generators)
    return Summary(
        lines=_lines(placed),
        dof=sum(constraint.dof for _, constraint in placed),
        rows=sum(constraint.rows for _, constraint in placed),
        unconstrained=sum(p.numel() for p in model.parameters() if id(p) not in free),
        unused=_unused(generators),
        resident=own + tables + _drawn_bytes(vectors),
        kept=_kept_bytes(placed),
        dense=own - replaced + _generated_bytes(vectors),
        file=file_bytes(model),
        residual=_first([constraint.residual for _, constraint in placed]),
        made_by=_made_by(vectors),
        cost=_cost(placed),
    )


def _cost(placed: list[tuple[str, Constraint]]) -> Cost | None:
    parts = [
        (group.generator, at_a_time(group.ledger.sizes, constraint.materialize))
        for _, constraint in placed
        for group in constraint.groups
    ]
    return cost_of(parts) if parts else None


def _made_by(vectors: Iterable[FreeVector]) -> tuple[str, ...]:
    ways = {vector.group.generator.made_by(vector.parameter.device) for vector in vectors}
    return tuple(sorted(ways))


def _generated_bytes(vectors: Iterable[FreeVector]) -> int:
    return sum(vector.group.generator.rows * vector.dtype.itemsize for vector in vectors)


def _buffered_origin(vector: FreeVector) -> Tensor | None:
    return None if vector.group.drawn else vector.origin


def _drawn_bytes(vectors: list[FreeVector]) -> int:
    return _generated_bytes(vector for vector in vectors if vector.group.drawn)


def _table_bytes(generators: list[Generator]) -> int:
    return sum(_bytes(generator.tables().values()) for generator in generators)


def _kept_bytes(placed: list[tuple[str, Constraint]]) -> int:
    return sum(constraint.kept_bytes for _, constraint in placed)


def _unused(generators: list[Generator]) -> int:
    """Free entries that no row reads. Only some generators have any, and counting takes time."""
    return sum(generator.unused() for generator in generators if generator.allows_unused)


def _first(residuals: list[float | None]) -> float | None:
    return next((residual for residual in residuals if residual is not None), None)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _by_identity(tensors: Iterable[Tensor | None]) -> dict[int, Tensor]:
    return {id(tensor): tensor for tensor in tensors if tensor is not None}


def _lines(placed: list[tuple[str, Constraint]]) -> tuple[Line, ...]:
    lines = []
    for prefix, constraint in placed:
        for group in constraint.groups:
            for entry in group.ledger:
                names = " = ".join(prefix + name for name in entry.names)
                name = group.generator.name
                lines.append(Line(names, entry.shape, name, entry.scale, group.free))
    return tuple(lines)
