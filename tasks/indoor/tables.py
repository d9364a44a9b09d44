"""The paper's table of multi-task regression: one sub-network, or two that share weights."""

from collections.abc import Sequence

from lincon.tasks.experiments.sweeps.tables import PaperTable, Row
from lincon.tasks.experiments.training.recipe import Cell


def row(label: str, scheme: str, *paper: float) -> Row:
    """A row of a cascade of two sub-networks; of one if the scheme is vanilla."""

    def cell(models: Sequence[str], seed: int) -> Cell:
        return Cell(models[0], scheme, 1.0, seed, "indoor")

    return Row(label, cell, paper)


TABLES: dict[str, PaperTable] = {
    "multitask": PaperTable(
        "indoor",
        "Depth and normals, one sub-network and two (paper: Stanford 2D-3D-S)",
        ("paper: depth RMSE %", "paper: normal RMSE %"),
        ("small",),
        (
            row("Vanilla model", "vanilla", 25.5, 41.0),
            row("RPG with shared BN", "shared-bn", 24.7, 40.3),
            row("Reuse & new BN", "new-bn", 24.0, 39.4),
            row("Reuse & new BN & perm. and reflect.", "rpg", 22.8, 39.1),
        ),
        (
            "dof: weights of one sub-network in all rows; norms and biases are free and counted "
            "apart.",
            "How the paper's percentages are defined is not known. Here the normals' is 100 x the "
            "square root of the mean squared distance between unit vectors; depth is in metres (x "
            "100 would be its percent).",
        ),
    ),
}
"""The paper's tables of indoor scenes by name."""
