"""Generators that are made of another one, and of tables of their own that say what becomes of it."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator
from lincon.maps.registry import build

_INNER = "inner_"


class Around(Generator):
    """Holds ``inner``; the file stores its spec, its tables by their names after "inner_", and `own_tables`.

    A subclass writes `_write_scaled` and `_accumulate_scaled`, which give `_write` and `_accumulate`; the free vector
    reaches them as the inner generator spreads it.
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
    def spread_dof(self) -> int:
        return self.inner.spread_dof

    def _spread(self, free: Tensor) -> Tensor:
        return self.inner._spread(free)

    def _gather(self, total: Tensor) -> Tensor:
        return self.inner._gather(total)

    def _write(self, out: Tensor, free: Tensor, start: int) -> None:
        self._write_scaled(out, free, start, [(0, len(out), 1.0)])

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        self._accumulate_scaled(out, grad, start, [(0, len(grad), 1.0)])
