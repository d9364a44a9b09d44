"""The ledger: which tensor of the model owns which rows of G, with which scale.

A ledger is a value, and a model file stores it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One generated tensor.

    ``names``: dotted names in the owner, the first is its own, the others are tied to it.
    ``shape``: of the tensor. ``start``: its first row. ``scale``: the multiplier of its rows.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    start: int
    scale: float = 1.0

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def stop(self) -> int:
        return self.start + self.numel


@dataclass(frozen=True)
class Ledger:
    """Entries in the order of `named_parameters`, whose ranges cover all rows without overlap.

    >>> ledger = Ledger.of([(("a.weight",), (2, 3)), (("b.weight", "c.weight"), (4,))])
    >>> [(entry.name, entry.start, entry.stop) for entry in ledger]
    [('a.weight', 0, 6), ('b.weight', 6, 10)]
    >>> Ledger.from_json(ledger.to_json()) == ledger
    True
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(
        cls,
        tensors: list[tuple[tuple[str, ...], tuple[int, ...]]],
        scales: list[float] | None = None,
    ) -> "Ledger":
        """Lay tensors, (names, shape) each, one after the other."""
        stops = accumulate((prod(shape) for _, shape in tensors), initial=0)
        scales = [1.0] * len(tensors) if scales is None else scales
        return cls(
            tuple(
                Entry(n, s, start, c)
                for (n, s), start, c in zip(tensors, stops, scales, strict=False)
            )
        )

    @property
    def rows(self) -> int:
        return self.entries[-1].stop if self.entries else 0

    @property
    def sizes(self) -> list[int]:
        return [entry.numel for entry in self.entries]

    @property
    def scales(self) -> list[float]:
        return [entry.scale for entry in self.entries]

    def within(self, modules: Sequence[str]) -> list[bool]:
        """Whether each tensor is in one of these modules of the owner, under any of its names."""
        prefixes = tuple(f"{module}." for module in modules)
        return [any(n.startswith(prefixes) for n in entry.names) for entry in self.entries]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def to_json(self) -> list[list[Any]]:
        """[[names, shape, scale], ...]. The ranges follow from the shapes."""
        return [[list(e.names), list(e.shape), e.scale] for e in self.entries]

    @classmethod
    def from_json(cls, rows: list[list[Any]]) -> "Ledger":
        tensors = [(tuple(map(str, names)), tuple(map(int, shape))) for names, shape, _ in rows]
        return cls.of(tensors, [float(scale) for *_, scale in rows])
