"""Schemes of sharing, by name: how a model is made whose body has about ``dof`` free numbers, and how it is trained.

To add one, add a line to `SCHEMES`. Most are a generator and train in one phase; LegoNet and Deep Compression change
what the weights are made of on the way, and say so as phases.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import prune

import lincon
from lincon import LinconError
from lincon.generators import lego
from lincon.tasks.classification.models import Architecture, body_weights, count, nearest_width

Make = Callable[[Architecture, int, int], nn.Module]
"""(architecture, dof, seed of the generating matrix) -> model."""

R18_STAGES = 147_456, 524_288, 2_097_152, 8_388_608
"""Block convolutions of each stage of ResNet-18: the sizes of the local rings where a model has four stages."""


@dataclass(frozen=True)
class Phase:
    """A part of a training, with an optimiser and a learning-rate cycle of its own.

    ``share`` of the epochs; ``begin(model, dof)`` is called before it; ``penalty(model)`` is added to the loss.
    """

    share: float = 1.0
    begin: Callable[[nn.Module, int], None] | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None


def degrees_of_freedom(model: nn.Module) -> int:
    """Free numbers in the body: the free vectors of a constrained model, all body weights of another."""
    constraints = lincon.constraints(model)
    return sum(c.dof for c in constraints) if constraints else count(model, body_weights(model))


def nonzeros(model: nn.Module) -> int:
    """Weights of the body that are not zero: how the DoF of a pruned model are counted."""
    generated = {name: weight for c in lincon.constraints(model) for name, weight in c.weights().items()}
    return sum(int(weight.count_nonzero()) for weight in generated.values())


@dataclass(frozen=True)
class Scheme:
    """How a model is made, how its training is divided, and how its DoF are counted.

    ``takes_dof``: whether the asked DoF changes anything.
    """

    make: Make
    phases: tuple[Phase, ...] = (Phase(),)
    dof: Callable[[nn.Module], int] = degrees_of_freedom
    takes_dof: bool = True

    def epochs(self, total: int) -> list[int]:
        """How many epochs each phase gets; a phase may get none of a short training."""
        ends = [0.0]
        for phase in self.phases:
            ends.append(ends[-1] + phase.share)
        return [after - before for before, after in pairwise(round(total * end / ends[-1]) for end in ends)]


def vanilla(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The unconstrained model, whatever the dof."""
    return architecture()


def small(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The dense network of the same family that has about as many parameters in all as a constrained one."""
    model = architecture()
    total = count(model) - count(model, body_weights(model)) + dof
    return architecture(width=nearest_width(architecture, total))


def constrained(generator: str, scope: str = "model", **options: Any) -> Scheme:
    """The scheme that constrains the body by a registered generator; arguments as of `lincon.constrain`."""

    def make(architecture: Architecture, dof: int, seed: int) -> nn.Module:
        model = architecture()
        names = body_weights(model)
        lincon.constrain(model, generator, dof=dof, seed=seed, where=names, scope=scope, **options)
        return model

    return Scheme(make)


def by_stage(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring for each stage of the body, of ResNet-18's proportions where there are four stages of convolutions."""
    model = architecture()
    names = body_weights(model)
    stages = _stages(names)
    sizes = [count(model, members) for members in stages.values()]
    if dof < len(sizes):
        raise LinconError(f"rpg-block has {len(sizes)} rings here; dof={dof} must be at least that.")
    shares = _shares(dof, R18_STAGES)
    if len(sizes) != len(R18_STAGES) or any(share > size for share, size in zip(shares, sizes, strict=True)):
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


def legos(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """Every convolution of the body made of legos whose selection is learned first.

    Half as many legos as filters, as LegoNet has by default, and so many splits of the input channels (a power of two
    that divides them) that the legos come nearest to the asked share of the layer's weights.
    """
    model = architecture()
    names = body_weights(model)
    if any(model.get_parameter(name).dim() != 4 for name in names):
        raise LinconError("lego builds filters of convolutions; this model's body has other weights.")
    share = dof / count(model, names)
    for name in names:
        splits = _splits(model.get_parameter(name).shape[1], 0.5 / share)
        lego.warm_up(model, splits=splits, legos=share * splits, where=[name])
    return model


def _splits(channels: int, most: float) -> int:
    """The largest power of two up to ``most`` that divides the channels; 1 at least."""
    splits = 1
    while 2 * splits <= most and channels % (2 * splits) == 0:
        splits *= 2
    return splits


def _freeze(model: nn.Module, dof: int) -> None:
    lego.freeze(model)


def _prune(model: nn.Module, dof: int) -> None:
    """Keep the ``dof`` weights of the body that are largest in magnitude; the rest stay zero."""
    places = _places(model)
    total = sum(getattr(module, name).numel() for module, name in places)
    prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=total - dof)


CENTROIDS = 255
"""Shared values a convolution: 8 bits (Han et al. 2016), of which one code is zero."""


def _cluster(model: nn.Module, dof: int) -> None:
    """Cluster each layer's surviving weights; their values are fine-tuned from here on, zeros stay zero.

    By the mean gradient of a centroid's weights, which moves them as projected gradient descent does: Han et al. sum
    it, which at the rate of the training undoes the training.
    """
    for module, name in _places(model):
        prune.remove(module, name)
    names = body_weights(model)
    kept = [int(model.get_parameter(name).count_nonzero()) for name in names]
    books = {name: max(1, min(CENTROIDS, number)) for name, number in zip(names, kept, strict=True)}
    lincon.constrain(model, "codebook", where=names, scope=books, scale=None, init="project", gradient="gram")


def _places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """(module, attribute) of every weight of the body, also while it is pruned."""
    names = (name.removesuffix("_orig") for name in body_weights(model))
    return [(model.get_submodule(path), attribute) for path, _, attribute in (name.rpartition(".") for name in names)]


SCHEMES: dict[str, Scheme] = {
    "vanilla": Scheme(vanilla, takes_dof=False),
    "rpg": constrained("ring"),
    "rpg-block": Scheme(by_stage),
    "rpg-no-sign": constrained("ring", sign=False),
    "rpg-no-permute": constrained("ring", permute=False),
    "rpg-plain": constrained("ring", permute=False, sign=False),
    "random": constrained("random"),
    "hash": constrained("hash", scope="tensor"),  # HashedNets hash every layer by itself
    "lego": Scheme(legos, (Phase(0.1, penalty=lego.balance), Phase(0.9, _freeze))),
    "deep-compression": Scheme(vanilla, (Phase(0.5), Phase(0.3, _prune), Phase(0.2, _cluster)), nonzeros),
    "fold": constrained("fold"),
    "fastfood": constrained("fastfood"),
    "kronecker": constrained("kronecker"),
    "sparse": constrained("sparse"),
    "dense": constrained("dense"),
    "small": Scheme(small),
}
"""Schemes by name, in the order of a table."""
