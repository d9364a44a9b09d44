"""The paper's table of pose: cascades of one, two and four sub-networks, three ways of sharing."""

from collections.abc import Sequence

from lincon.tasks.experiments.sweeps.columns import with_gap
from lincon.tasks.experiments.sweeps.tables import PaperTable, Row
from lincon.tasks.experiments.training.recipe import Cell


def row(label: str, stacks: int, scheme: str, *paper: float | None) -> Row:
    """A row of an hourglass with ``stacks`` sub-networks."""

    def cell(models: Sequence[str], seed: int) -> Cell:
        name = models[0]
        separator = "," if ":" in name else ":"  # of further options, or of the first
        return Cell(f"{name}{separator}stacks={stacks}", scheme, 1.0, seed, "pose")

    return Row(label, cell, paper)


TABLES: dict[str, PaperTable] = {
    "pose": PaperTable(
        "pose",
        "Human pose, cascaded sub-networks (paper: MPII)",
        ("paper: PCKh %", "paper: gap"),
        ("hourglass-small",),
        (
            row("1x sub-net", 1, "none", 84.7, None),
            row("2x, shared (CPM's way)", 2, "shared", 86.1, 1.13),
            row("2x, RPG", 2, "rpg", 86.5, 0.64),
            row("2x, no shared weights", 2, "none", 87.1, 1.15),
            row("4x, shared (CPM's way)", 4, "shared", 86.5, 1.70),
            row("4x, RPG", 4, "rpg", 87.3, 1.15),
            row("4x, no shared weights", 4, "none", 88.0, 1.98),
        ),
        (
            "dof: weights of the sub-networks; stem, links, norms and biases are free in all and "
            "counted apart. The paper's backbone and recipe are not stated in what we could read: "
            "its parameter counts fit stacked hourglasses with one residual at every position.",
            "That the paper's gaps are those of 2 and of 4 sub-networks is inferred: a summary "
            "prints them beside the names of two ResNets.",
        ),
        ours=with_gap,
    ),
}
"""The paper's tables of pose by name."""
