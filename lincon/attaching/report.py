"""A summary of a constrained model: `summary`."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from lincon.attaching.constraint import Constraint, owned
from lincon.attaching.cost import USES, Cost, cost_of
from lincon.attaching.free_vector import FreeVector
from lincon.generator import Generator


@dataclass(frozen=True)
class Line:
    """One generated tensor: its name, shape, generator, multiplier and the free vector it reads."""

    name: str
    shape: tuple[int, ...]
    generator: str
    scale: float
    free: str


@dataclass(frozen=True)
class Summary:
    """A table; counts are numbers, sizes are bytes.

    Attributes:
        lines: one line for each generated tensor.
        dof: the length of the free vectors.
        rows: the number of generated weights.
        unconstrained: the number of parameters that are neither generated nor free.
        unused: the number of free entries that no row reads.
        resident: bytes of parameters, buffers and tables that stay in memory.
        dense: bytes of parameters and buffers of the merged model.
        file: bytes of tensors in the file that `lincon.save` writes, without its header, before
            masks and integers are coded.
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
    dense: int
    file: int
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
        per_parameter = self.rows / max(1, self.dof)
        totals = [
            f"dof            {self.dof:>14,}  ({self.unused:,} unused)",
            f"generated rows {self.rows:>14,}  ({per_parameter:.2f} per free parameter)",
            f"unconstrained  {self.unconstrained:>14,}",
            f"total          {self.total:>14,}",
            f"resident bytes {self.resident:>14,}  (merged: {self.dense:,})",
            f"file bytes     {self.file:>14,}  (at most; without the header)",
        ]
        if self.residual is not None:
            totals.append(
                f"residual       {self.residual:>14.4g}  (of the last projection, relative)"
            )
        if self.cost is not None:
            totals.append(f"made in        {self.cost} at a batch of {USES}")
        totals += [f"made by        {each}" for each in self.made_by]
        return "\n".join([*table, "", *totals])


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
        dense=own - replaced + _generated_bytes(vectors),
        file=stored_bytes(model) - _bytes(origins.values()) + tables,
        residual=_first([constraint.residual for _, constraint in placed]),
        made_by=_made_by(vectors),
        cost=_cost(placed),
    )


def _cost(placed: list[tuple[str, Constraint]]) -> Cost | None:
    parts = []
    for _, constraint in placed:
        for group in constraint.groups:
            sizes = group.ledger.sizes
            at_a_time = sizes if constraint.materialize == "layer" else [sum(sizes)]
            parts.append((group.generator, at_a_time))
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


def _unused(generators: list[Generator]) -> int:
    """Free entries that no row reads. Only some generators have any, and counting takes time."""
    return sum(generator.unused() for generator in generators if generator.allows_unused)


def _first(residuals: list[float | None]) -> float | None:
    return next((residual for residual in residuals if residual is not None), None)


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the tensors in a model's state_dict. Tensors at one address count once."""
    tensors = [t for t in model.state_dict().values() if isinstance(t, Tensor)]
    # Empty tensors of any kind share an address.
    return _bytes({t.data_ptr() if t.numel() else id(t): t for t in tensors}.values())


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
