"""Schemes of sharing, by name: how a model with about ``dof`` free numbers is made and trained.

To add one, add a line to `SCHEMES`, or to `SHARING` for every task.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import le

from torch import nn

import lincon
from lincon import LinconError
from lincon.tasks.classification.compression.pruning import PRUNED
from lincon.tasks.experiments.schemes.body import Architecture, body_weights, count_parameters
from lincon.tasks.experiments.schemes.scheme import Scheme, vanilla
from lincon.tasks.experiments.schemes.sharing import SHARING

R18_STAGES = 147_456, 524_288, 2_097_152, 8_388_608
"""Weights of the block convolutions of each stage of ResNet-18."""


def by_stage(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring for each stage of the body.

    The rings have the proportions of ResNet-18's stages if there are as many stages, all of them
    large enough; otherwise those of the stages themselves.
    """
    model = architecture()
    names = body_weights(model)
    stages = _stages(names)
    sizes = [count_parameters(model, members) for members in stages.values()]
    if dof < len(sizes):
        raise LinconError(
            f"rpg-block has {len(sizes)} rings here; dof={dof} must be at least that."
        )
    shares = proportional(dof, R18_STAGES)
    fits = len(sizes) == len(shares) and all(map(le, shares, sizes))
    if not fits:
        shares = proportional(dof, sizes)
    rings = dict(zip(stages, shares, strict=True))
    lincon.constrain(model, "ring", seed=seed, where=names, scope=rings)
    return model


def _stages(names: Sequence[str]) -> dict[str, list[str]]:
    """The weights of each stage, the first modules by which their names differ.

    `body.2.0.conv1.weight` is of the stage `body.2`; if all weights are in `body.layers`, a stage
    is `body.layers.0`.
    """

    def prefix(name: str, depth: int) -> str:
        return ".".join(name.split(".")[:depth])

    depth = 1
    while depth < 9 and len({prefix(name, depth) for name in names}) == 1:
        depth += 1
    stages: dict[str, list[str]] = {}
    for name in names:
        stages.setdefault(prefix(name, depth), []).append(name)
    return stages


def proportional(total: int, sizes: Sequence[int]) -> list[int]:
    """``total`` divided in proportion to ``sizes``, each share at least 1.

    The ends of the shares are rounded, so that they add up exactly.

    >>> proportional(10, [1, 1, 4])
    [2, 1, 7]
    """
    whole, ends = sum(sizes), [0]
    for size_so_far in accumulate(sizes):
        ends.append(max(ends[-1] + 1, round(total * size_so_far / whole)))
    return [after - before for before, after in pairwise(ends)]


SCHEMES: dict[str, Scheme] = {
    "vanilla": Scheme(vanilla, takes_dof=False),
    "rpg": SHARING["rpg"],
    "rpg-block": Scheme(by_stage),
    **SHARING,
    **PRUNED,
}
"""Schemes by name, in the order of a table."""
