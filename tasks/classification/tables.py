"""The paper's tables of classification.

The paper's setting is `--data cifar100 --model resnet18,resnet34 --preset cifar`. Smaller models
have the same table in shares: the ring of 11.16M is 52.5 % of ResNet-34's block weights, and so on.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import mean

from lincon.exporting import merged_copy
from lincon.tasks.classification.compression.channels import macs
from lincon.tasks.classification.compression.quantization import BATCH, with_quantisation
from lincon.tasks.classification.schemes import SCHEMES
from lincon.tasks.classification.studies import generalization
from lincon.tasks.experiments.sweeps import compare
from lincon.tasks.experiments.sweeps.against import against
from lincon.tasks.experiments.sweeps.columns import gap_columns, mean_of
from lincon.tasks.experiments.sweeps.report import Result, group_seeds, mean_and_spread, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tables import Columns, PaperTable, Row
from lincon.tasks.experiments.trained.deploying import images_of, latency
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run

SMALLER, LARGER = 0, 1
PRUNED_274K = 274_042
"""A CIFAR ResNet-20 with its norms: what the paper's fine-grained table counts."""
PRUNINGS = {
    "IMP": "imp",
    "IMP, once": "imp-once",
    "RPG": "rpg-imp",
    "RPG, once": "rpg-imp-once",
    "Deep Compression": "deep-compression",
}
RING_11M, RING_2M = 11_160_576, 2_359_296
"""The authors' ring (their code's default), and one 512 x 512 x 3 x 3 convolution."""
PAPERS = "resnet18", "resnet34"
BLOCKS = {"resnet18": 11_157_504, "resnet34": 21_258_240}
"""Weights of the block convolutions."""
HALF_OF_R18 = BLOCKS["resnet18"] // 2
PRUNED_SHARES = {share: round(share * BLOCKS["resnet18"]) for share in (0.05, 0.1, 0.2)}
"""Free numbers of ResNet-18 that pruning leaves, by their share of the blocks' weights."""


def row(label: str, model: int, scheme: str, ring: int | None, *paper: float | None) -> Row:
    """A row of a table.

    Args:
        model: `SMALLER` or `LARGER`.
        ring: free numbers of the paper's own model; another model gets the same share.
        paper: the paper's numbers.
    """

    def cell(models: Sequence[str], seed: int) -> Cell:
        name, papers_model = models[model], PAPERS[model]
        dof: int | float | None = ring
        if ring is not None and name.removesuffix("-imagenet") != papers_model:
            dof = round(ring / BLOCKS[papers_model], 3)
        return Cell(name, scheme, dof, seed)

    return Row(label, cell, paper)


def shifted(sweep: Sweep, objectnet: Path | None) -> tuple[Result, Columns]:
    """Train, and report the gap and the accuracy on shifted images.

    The latter is the mean over all shifts and strengths; for ObjectNet it is that of protocol A,
    which the paper's figures resemble.
    """
    result = generalization.generalization(sweep, objectnet)
    accuracies = dict(zip(map(_key, sweep.cells), result.numbers["shifted"], strict=True))

    def mean_shifted(runs: Sequence[Run]) -> str:
        means = []
        for run in runs:
            by_shift = accuracies[run.model, run.scheme, run.asked, run.seed]
            values = by_shift.get("ObjectNet A") or list(chain(*by_shift.values()))
            means.append(100 * sum(values) / len(values))
        return with_spread(*mean_and_spread(means))

    return result, {**gap_columns(sweep.measures[0]), "shifted %": mean_shifted}


def pruned(sweep: Sweep, objectnet: Path | None) -> tuple[Result, Columns]:
    """Train and prune; report accuracy before and after pruning, and the cost of a forward."""
    result, images = compare.compare(sweep), images_of(sweep.data, BATCH)
    first_seed = sweep.cells[0].seed
    work: dict[tuple[str, int | float | None], int] = {}
    seconds: dict[tuple[str, int | float | None], float] = {}
    for cell in sweep.cells:
        if cell.seed == first_seed:
            model = merged_copy(sweep.load(cell))
            work[cell.scheme, cell.dof] = macs(model, images)
            seconds[cell.scheme, cell.dof] = latency(model, images)

    def before(run: Run) -> float:
        first_training = SCHEMES[run.scheme].epochs(sweep.recipe.epochs)[0]
        return 100 * run.curve[first_training - 1]

    numbers = [
        {"scheme": scheme, "asked": dof, "macs": work[scheme, dof], "seconds": each}
        for (scheme, dof), each in seconds.items()
    ]
    figure = against(_by_dof(sweep), result.title, "degrees of freedom", "test accuracy (%)")
    return replace(result, figure=figure, numbers={**result.numbers, "forward": numbers}), {
        "before %": mean_of(before),
        "after %": mean_of(lambda run: 100 * run.score),
        "drop": mean_of(lambda run: before(run) - 100 * run.score),
        "multiply-adds": lambda runs: f"{work[runs[0].scheme, runs[0].asked]:,}",
        f"ms / {BATCH}": lambda runs: f"{1e3 * seconds[runs[0].scheme, runs[0].asked]:.2f}",
        "file bytes": lambda runs: f"{max(run.file_bytes for run in runs):,}",
    }


def _by_dof(sweep: Sweep) -> dict[str, dict[float, list[float]]]:
    """Test accuracies (%) by scheme and the DoF after pruning."""
    curves: dict[str, dict[float, list[float]]] = {}
    for runs in group_seeds(sweep.finished()):
        dof = mean(run.dof for run in runs)
        curves.setdefault(runs[0].scheme, {})[dof] = [100 * run.score for run in runs]
    return curves


def _key(cell: Cell) -> tuple[str, str, int | float | None, int]:
    return cell.model, cell.scheme, cell.dof, cell.seed


TABLES: dict[str, PaperTable] = {
    "baselines": PaperTable(
        "classification",
        "Baselines at 11M DoF (CIFAR-100)",
        ("paper: CIFAR-100 %",),
        ("resnet-small", "resnet-medium"),
        (
            row("R18-vanilla", SMALLER, "vanilla", None, 77.5),
            row("R34-RPG-bk (a ring per stage)", LARGER, "rpg-block", RING_11M, 78.5),
            row("R34-RPG (one ring)", LARGER, "rpg", RING_11M, 78.9),
            row("R34-random weight share", LARGER, "random", RING_11M, 74.9),
            row("R34-Deep Compression", LARGER, "deep-compression", RING_11M, 72.2),
            row("R34-Hash", LARGER, "hash", RING_11M, 75.6),
            row("R34-Lego", LARGER, "lego", RING_11M, 78.4),
            row("R34-vanilla", LARGER, "vanilla", None, 79.1),
        ),
        (
            "How the paper counted Deep Compression's DoF is not known; here weights that are not "
            "zero are counted, and half of them pruned usually costs less than the paper's row "
            "lost.",
        ),
    ),
    "dof-accuracy": PaperTable(
        "classification",
        "Accuracy and DoF",
        ("paper: ImageNet %", "paper: CIFAR-100 %"),
        ("resnet-small", "resnet-medium"),
        (
            row("R18-RPG", SMALLER, "rpg", RING_2M, 67.2, 75.6),
            row("R18-vanilla", SMALLER, "vanilla", None, 70.5, 77.6),
            row("R34-RPG", LARGER, "rpg", RING_2M, 69.1, 76.5),
            row("R34-vanilla", LARGER, "vanilla", None, 73.4, 79.1),
        ),
        (
            "A summary of the paper prints 45K DoF over the RPG columns; by the abstracts these "
            "figures belong to about 2M (a ring of one convolution of 512 x 512 x 3 x 3), which "
            "is what is trained here.",
        ),
    ),
    "generalization": PaperTable(
        "classification",
        "Generalization: train - test gap, and a shifted test set (paper: ImageNet and ObjectNet)",
        ("paper: gap", "paper: ObjectNet %"),
        ("resnet-small", "resnet-medium"),
        (
            row("R18-vanilla", SMALLER, "vanilla", None, -0.7, 13.4),
            row("R18-RPG", SMALLER, "rpg", RING_2M, -2.7, None),
            row("R34-vanilla", LARGER, "vanilla", None, 1.1, 16.0),
            row("R34-RPG", LARGER, "rpg", RING_11M, -2.3, 16.5),
        ),
        (
            "The paper's gaps compare training images with augmentation against plain validation "
            "images, which makes them smaller, even negative; ours compare plain images with "
            "plain images.",
            "Which DoF the paper's RPG rows of the gap have is not stated.",
        ),
        ours=shifted,
    ),
    "pruning": PaperTable(
        "classification",
        "Pruning, with the DoF after it (paper: fine-grained on CIFAR-10 as far as is known, "
        "channels on ImageNet)",
        ("paper: before %", "paper: after %", "paper: drop"),
        ("resnet-small",),
        (
            row("R18-IMP", SMALLER, "imp", PRUNED_274K, 92.3, 90.5, 1.8),
            row("R18-RPG", SMALLER, "rpg-imp", PRUNED_274K, 95.0, 93.0, 2.0),
            *(
                row(f"{label}, {share:.0%} left", SMALLER, scheme, ring, None, None, None)
                for share, ring in PRUNED_SHARES.items()
                for label, scheme in PRUNINGS.items()
            ),
            row("R18-Knapsack, channels", SMALLER, "knapsack", None, None, 69.35, None),
            row("Pruned R18-RPG, channels", SMALLER, "rpg-knapsack", HALF_OF_R18, None, 69.1, None),
        ),
        (
            "Before: after the first training. IMP begins with all weights, RPG with a ring of "
            "half as many; both are pruned in three rounds with rewinding to the start, or once "
            "and trained on. Each training has an equal share of the epochs. The paper's IMP row "
            "is, by its DoF, a network of 274k weights (a CIFAR ResNet-20) and not an 11M "
            "ResNet-18; how much it pruned, and on which level, is not stated.",
            "Deep Compression prunes once and clusters what is left: its file, which is "
            "entropy-coded, holds numbers of clusters, those of the others float32.",
            "Channels: pruned to at most 60 % of the multiply-adds (the paper's 1.09e9 of 1.81e9) "
            "by an exact knapsack of Taylor importance, then trained on with inner distillation, "
            "half of the epochs each. Its DoF in the paper, 11.2M and 5.6M, are those before. "
            "Milliseconds are of the merged model on one thread, one seed.",
        ),
        ours=pruned,
    ),
    "quantization": PaperTable(
        "classification",
        "Post-training quantisation (paper: ImageNet)",
        ("paper: before %", "paper: after %", "paper: drop"),
        ("resnet-small",),
        (
            row("R18-vanilla", SMALLER, "vanilla", None, 69.8, 69.5, 0.3),
            row("R18-RPG", SMALLER, "rpg", HALF_OF_R18, 70.2, 70.1, 0.1),
        ),
        (
            "int8: the merged model executed in eight bits by torchao, calibrated on 32 batches "
            "of training images; its bytes are those of its tensors, and both latencies are of "
            "compiled models on one thread. W in 8 and 4 bits: the free vector (of vanilla: all "
            "weights of the body), with a step for every 64 integers or more, entropy-coded in "
            "the file. The paper's vanilla row equals torchvision's int8 ResNet-18.",
        ),
        ours=with_quantisation,
    ),
}
"""The paper's tables of classification by name."""
