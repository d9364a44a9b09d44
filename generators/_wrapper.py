"""Generators that change another generator, as tables of their own say."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from lincon.errors import LinconError
from lincon.generator import Generator
from lincon.maps.registry import build
from lincon.maps.segments import NO_SEGMENTS, Segments
from lincon.shapes import Bool, Float

_INNER = "inner_"


class Wrapper(Generator):
    """Holds a generator, ``inner``. The file stores its spec, its tables and `own_tables`.

    The tables of ``inner`` are stored by their names after "inner_". A subclass writes `write` and
    `accumulate`, which hand the segments on to the inner generator.
    """

    allows_unused = True
    left_by: str
    """The function that makes one, for a refusal."""

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
                f"{self.name}: it is made by {self.left_by}; give inner=, or another name."
            )
        inner_tables = {name.removeprefix(_INNER): table for name, table in tables.items()}
        self.inner = inner if isinstance(inner, Generator) else build(inner, inner_tables)
        self.disjoint = self.inner.disjoint
        self.grain = self.inner.grain

    @abstractmethod
    def own_tables(self) -> dict[str, Tensor]:
        """What no seed can rebuild beside the inner generator's, by constructor argument."""

    def options(self) -> dict[str, Any]:
        return {"inner": self.inner.spec()}

    def tables(self) -> dict[str, Tensor]:
        inner_tables = self.inner.tables().items()
        return self.own_tables() | {_INNER + name: table for name, table in inner_tables}

    def made_by(self, device: torch.device) -> str:
        return self.inner.made_by(device)

    def work(self, rows: int) -> float | None:
        return self.inner.work(rows)

    @property
    def prepared_dof(self) -> int:
        return self.inner.prepared_dof

    def prepare(self, free: Float[Tensor, " dof"]) -> Float[Tensor, " prepared_dof"]:
        return self.inner.prepare(free)

    def prepare_adjoint(self, total: Float[Tensor, " prepared_dof"]) -> Float[Tensor, " dof"]:
        return self.inner.prepare_adjoint(total)

    @abstractmethod
    def write(
        self,
        out: Float[Tensor, " n"],
        prepared: Float[Tensor, " prepared_dof"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None: ...

    @abstractmethod
    def accumulate(
        self,
        out: Float[Tensor, " prepared_dof"],
        grad: Float[Tensor, " n"],
        start: int,
        segments: Segments = NO_SEGMENTS,
    ) -> None: ...

    def _write(self, out: Tensor, prepared: Tensor, start: int) -> None:
        self.write(out, prepared, start)

    def _accumulate(self, out: Tensor, grad: Tensor, start: int) -> None:
        self.accumulate(out, grad, start)


def as_mask(
    argument: str, mask: Any, length: int, true: int | None = None
) -> Bool[Tensor, " {length}"]:
    """``mask`` on the CPU. ``argument`` names it in a refusal, "mask: shown".

    Raises LinconError unless it is a bool tensor of ``length``, with as many true places as asked
    for.
    """
    if not isinstance(mask, Tensor):
        raise LinconError(f"{argument} must be a tensor of bool, got a {type(mask).__name__}.")
    as_asked = mask.shape == (length,) and mask.dtype == torch.bool
    if not as_asked or (true is not None and int(mask.sum()) != true):
        count = "" if true is None else f" with {true} true"
        raise LinconError(
            f"{argument} must be bool of shape ({length},){count}, "
            f"got {tuple(mask.shape)} {mask.dtype} with {int(mask.count_nonzero())} true."
        )
    return mask.detach().cpu()
