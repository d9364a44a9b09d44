"""Schemes of sharing, by name: how a model is made whose body has about ``dof`` free numbers, and how it is trained.

To add one, add a line to `SCHEMES`, or to `SHARING` for every task.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

import lincon
from lincon import LinconError
from lincon.tasks.classification.compression.pruning import PRUNED
from lincon.tasks.experiments.schemes.body import Architecture, body_weights, count_parameters
from lincon.tasks.experiments.schemes.scheme import Scheme, vanilla
from lincon.tasks.experiments.schemes.sharing import SHARING

R18_STAGES = 147_456, 524_288, 2_097_152, 8_388_608
"""Block convolutions of each stage of ResNet-18: the sizes of the local rings where a model has four stages."""


def by_stage(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring for each stage of the body, of ResNet-18's proportions where there are four stages of convolutions."""
    model = architecture()
    names = body_weights(model)
    stages = _stages(names)
    sizes = [count_parameters(model, members) for members in stages.values()]
    if dof < len(sizes):
        raise LinconError(
            f"rpg-block has {len(sizes)} rings here; dof={dof} must be at least that."
        )
    shares = _shares(dof, R18_STAGES)
    if len(sizes) != len(R18_STAGES) or any(
        share > size for share, size in zip(shares, sizes, strict=True)
    ):
        shares = _shares(dof, sizes)
    rings = dict(zip(stages, shares, strict=True))
    lincon.constrain(model, "ring", seed=seed, where=names, scope=rings)
    return model


def _stages(names: Sequence[str]) -> dict[str, list[str]]:
    """The weights of each stage: `body.2` for `body.2.0.conv1.weight`; `body.layers.0` if all are in `body.layers`."""
    depth = 1
    while depth < 9 and len({tuple(name.split(".")[:depth]) for name in names}) == 1:
        depth += 1
    stages: dict[str, list[str]] = {}
    for name in names:
        stages.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return stages


def _shares(total: int, sizes: Sequence[int]) -> list[int]:
    """``total`` divided in proportion to ``sizes``, each at least 1, adding up exactly."""
    whole, ends, seen = sum(sizes), [0], 0
    for size in sizes:
        seen += size
        ends.append(max(ends[-1] + 1, round(total * seen / whole)))
    return [after - before for before, after in pairwise(ends)]


SCHEMES: dict[str, Scheme] = {
    "vanilla": Scheme(vanilla, takes_dof=False),
    "rpg": SHARING["rpg"],
    "rpg-block": Scheme(by_stage),
    **SHARING,
    **PRUNED,
}
"""Schemes by name, in the order of a table."""
