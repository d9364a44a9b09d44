"""What a constrained model is made of: `summary`."""

from dataclasses import dataclass

from torch import Tensor, nn

from lincon.attaching.constraint import Constraint, owned


@dataclass(frozen=True)
class Line:
    """One generated tensor: its name, shape, generator, rows, multiplier and the free vector it reads."""

    name: str
    shape: tuple[int, ...]
    generator: str
    scale: float
    free: str


@dataclass(frozen=True)
class Summary:
    """A table; counts are numbers, sizes are bytes.

    Attributes:
        lines: one a generated tensor.
        dof: the free vectors alone. rows: generated weights. total: dof and all unconstrained parameters.
        unconstrained: parameters that are neither generated nor free. unused: free entries that no row reads.
        resident: bytes of parameters and buffers that stay in memory. dense: the same for the merged model.
        file: bytes of tensors in the file that `lincon.save` writes, without its header, and before masks and integers
            are coded.
        residual: the relative residual of the last projection, or None.
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

    @property
    def total(self) -> int:
        return self.dof + self.unconstrained

    def __str__(self) -> str:
        width = max([len(line.name) for line in self.lines], default=6)
        rows = [
            f"{line.name:<{width}}  {' x '.join(map(str, line.shape)):>20}  {line.scale:>9.4g}"
            f"  {line.free} <- {line.generator}"
            for line in self.lines
        ]
        head = f"{'tensor':<{width}}  {'shape':>20}  {'scale':>9}  free vector <- generator"
        tail = [
            f"dof            {self.dof:>14,}  ({self.unused:,} unused)",
            f"generated rows {self.rows:>14,}  ({self.rows / max(1, self.dof):.2f} per free parameter)",
            f"unconstrained  {self.unconstrained:>14,}",
            f"total          {self.total:>14,}",
            f"resident bytes {self.resident:>14,}  (merged: {self.dense:,})",
            f"file bytes     {self.file:>14,}  (at most; without the header)",
        ]
        if self.residual is not None:
            tail.append(
                f"residual       {self.residual:>14.4g}  (of the last projection, relative)"
            )
        return "\n".join([head, *rows, "", *tail])


def summary(model: nn.Module) -> Summary:
    """Count everything in a model, constrained or not; every free vector once."""
    placed = owned(model)
    found = [constraint for _, constraint in placed]
    tensors = [*model.parameters(), *model.buffers()]
    origins = [c.owner._buffers[g.origin] for c in found for g in c.groups if g.origin]
    tables = [t for c in found for g in c.groups for t in g.generator.tables().values()]
    resident = sum(t.numel() * t.element_size() for t in tensors)
    free = {id(c.owner._parameters[g.free]) for c in found for g in c.groups}
    free |= {id(c.owner._buffers[g.steps]) for c in found for g in c.groups if g.steps}
    origin_bytes = sum(o.numel() * o.element_size() for o in origins if o is not None)
    free_bytes = sum(t.numel() * t.element_size() for t in tensors if id(t) in free)
    generated_bytes = sum(
        v.group.generator.rows * v.dtype.itemsize for c in found for v in c.vectors
    )
    return Summary(
        lines=tuple(line for prefix, c in placed for line in _lines(c, prefix)),
        dof=sum(c.dof for c in found),
        rows=sum(c.rows for c in found),
        unconstrained=sum(p.numel() for p in model.parameters() if id(p) not in free),
        unused=sum(
            g.generator.unused() for c in found for g in c.groups if g.generator.allows_unused
        ),
        resident=resident + sum(t.numel() * t.element_size() for t in tables),
        dense=resident - free_bytes - origin_bytes + generated_bytes,
        file=_state_bytes(model) - origin_bytes + sum(t.numel() * t.element_size() for t in tables),
        residual=next((c.residual for c in found if c.residual is not None), None),
    )


def _state_bytes(model: nn.Module) -> int:
    """Of the tensors of the state_dict, each once."""
    distinct = {
        t.data_ptr() if t.numel() else id(t): t
        for t in model.state_dict().values()
        if isinstance(t, Tensor)
    }
    return sum(t.numel() * t.element_size() for t in distinct.values())


def _lines(constraint: Constraint, prefix: str) -> list[Line]:
    return [
        Line(
            " = ".join(prefix + name for name in e.names),
            e.shape,
            group.generator.name,
            e.scale,
            group.free,
        )
        for group in constraint.groups
        for e in group.ledger
    ]
