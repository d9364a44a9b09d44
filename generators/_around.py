"""Generators that are made of another one, and of tables of their own that say what becomes of it."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator, Segments
from lincon.maps.registry import build

_INNER = "inner_"


class Around(Generator):
    """Holds ``inner``; the file stores its spec, its tables by their names after "inner_", and `own_tables`.

    A subclass writes `write` and `accumulate`, which hand the segments on to the inner generator.
    """

    allows_unused = True
    left_by: str
    """What makes one, for a refusal."""

    def __init__(
        self,
        rows: int,
        dof: int,
        seed: int,
        inner: Generator | dict[str, Any] | None,
        tables: dict[str, Tensor],
    ) -> None:
        super().__init__(rows, dof, seed)
        if inner is None:
            raise LinconError(
                f"{self.name}: it is what {self.left_by} leaves; give inner=, or another name."
            )
        own = {name.removeprefix(_INNER): table for name, table in tables.items()}
        self.inner = inner if isinstance(inner, Generator) else build(inner, own)
        self.disjoint = self.inner.disjoint  # type: ignore[misc]
        self.grain = self.inner.grain

    @abstractmethod
    def own_tables(self) -> dict[str, Tensor]:
        """What no seed can rebuild beside the inner generator's, by constructor argument."""

    def options(self) -> dict[str, Any]:
        return {"inner": self.inner.spec()}

    def tables(self) -> dict[str, Tensor]:
        return self.own_tables() | {
            _INNER + name: table for name, table in self.inner.tables().items()
        }

    @property
    def prepared_dof(self) -> int:
        return self.inner.prepared_dof

    def prepare(self, free: Tensor) -> Tensor:
        return self.inner.prepare(free)

    def prepare_adjoint(self, total: Tensor) -> Tensor:
        return self.inner.prepare_adjoint(total)

    @abstractmethod
    def write(self, out: Tensor, prepared: Tensor, start: int, segments: Segments = ()) -> None: ...

    @abstractmethod
    def accumulate(
        self, out: Tensor, grad: Tensor, start: int, segments: Segments = ()
    ) -> None: ...

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        self.write(out, prepared, start)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        self.accumulate(out, grad, start)
