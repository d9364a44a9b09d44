"""The layout of a group: what a tape knows of its tensors before the first step.

Tensors that lie side by side form a run. A run is one node of autograd's graph, so a small model
has one for all of its tensors. The gradients of a run wait for one another. So that they take
little memory, a run has at most `RUN` rows or a single tensor.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lincon.attaching.group import Group

Key = tuple[int, int]
"""The number of a group, and the index of an entry in its ledger."""

RUN = 1 << 20
"""The most rows of a run of several tensors: 4 MB of float32."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The tensors of a group in the order of its ledger.

    Attributes:
        shapes, sizes, starts: of each tensor; its size is its number of rows.
        runs: ranges of entries, which cover all of them.
    """

    shapes: list[tuple[int, ...]]
    sizes: list[int]
    starts: list[int]
    runs: list[range]

    @classmethod
    def of(cls, group: Group) -> "Layout":
        """The layout of a group."""
        entries = list(group.ledger)
        return cls(
            [entry.shape for entry in entries],
            [entry.numel for entry in entries],
            [entry.start for entry in entries],
            list(_runs(group)),
        )


def _runs(group: Group) -> Iterator[range]:
    first = rows = 0
    for index, entry in enumerate(group.ledger):
        is_elsewhere = group.device(index) != group.device(first)
        if index > first and (is_elsewhere or rows + entry.numel > RUN):
            yield range(first, index)
            first, rows = index, 0
        rows += entry.numel
    yield range(first, len(group.ledger))
