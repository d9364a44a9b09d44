"""Schemes that serve every task, by name.

Most constrain the body by a generator and train in one phase. LegoNet and Deep Compression replace
the body's weights in the course of the training, so they have several phases.
"""

import warnings
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils import prune

import lincon
from lincon import LinconError
from lincon.generators import lego
from lincon.tasks.experiments.schemes.body import Architecture, body_weights, count_parameters
from lincon.tasks.experiments.schemes.scheme import Phase, Scheme, constrained, small, vanilla

if TYPE_CHECKING:
    from lincon.tasks.experiments.data.sets import Data

CENTROIDS = 255
"""Shared values a layer: 8 bits (Han et al. 2016), of which one code is zero."""


def nonzeros(model: nn.Module) -> int:
    """Weights of the body that are not zero: how the DoF of a pruned model are counted."""
    weights = [
        weight
        for constraint in lincon.constraints(model)
        for weight in constraint.weights().values()
    ]
    return sum(int(weight.count_nonzero()) for weight in weights)


def legos(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A model whose convolutions are built of legos; which ones is learned first.

    There are half as many legos as filters, LegoNet's default. The number of splits of the input
    channels is a power of two that divides them: the one with which the legos come nearest to the
    asked share of the layer's weights.

    Raises:
        LinconError: the body has weights that are not of convolutions.
    """
    model = architecture()
    names = body_weights(model)
    if any(model.get_parameter(name).dim() != 4 for name in names):
        raise LinconError(
            "lego builds filters of convolutions; this model's body has other weights."
        )
    share = dof / count_parameters(model, names)
    for name in names:
        channels = model.get_parameter(name).shape[1]
        splits = _largest_splits(channels, 0.5 / share)
        lego.warm_up(model, splits=splits, legos=share * splits, where=[name])
    return model


def _largest_splits(channels: int, limit: float) -> int:
    """The largest power of two up to ``limit`` that divides the channels; at least 1."""
    splits = 1
    while 2 * splits <= limit and channels % (2 * splits) == 0:
        splits *= 2
    return splits


def _freeze(model: nn.Module, dof: int, data: "Data") -> None:
    lego.freeze(model)


def _prune(model: nn.Module, dof: int, data: "Data") -> None:
    """Keep the ``dof`` weights of the body that are largest in magnitude; the others stay zero."""
    places = pruned_places(model)
    total = sum(getattr(module, name).numel() for module, name in places)
    prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=total - dof)


def _cluster(model: nn.Module, dof: int, data: "Data") -> None:
    """Cluster each layer's surviving weights; then only the centroids are trained.

    Zeros stay zero. A centroid follows the mean gradient of its weights, as in projected gradient
    descent. Han et al. follow the sum, which at the learning rate of the training undoes it.
    """
    for module, attribute in pruned_places(model):
        prune.remove(module, attribute)
    centroids = {}
    for name in body_weights(model):
        survivors = int(model.get_parameter(name).count_nonzero())
        centroids[name] = max(1, min(CENTROIDS, survivors))
    with warnings.catch_warnings():
        # A layer with one survivor has one centroid; elsewhere a dof of 1 is likely a slip.
        warnings.filterwarnings("ignore", "dof=1 ", lincon.LinconWarning)
        lincon.constrain(
            model,
            "codebook",
            where=list(centroids),
            scope=centroids,
            scale=None,
            init="project",
            gradient="gram",
        )


def pruned_places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """(module, attribute) of every weight of the body.

    While a weight is pruned, torch keeps the Parameter under a name with the suffix "_orig": the
    attribute is without it.
    """
    places = []
    for name in body_weights(model):
        path, _, attribute = name.removesuffix("_orig").rpartition(".")
        places.append((model.get_submodule(path), attribute))
    return places


SHARING: dict[str, Scheme] = {
    "rpg": constrained("ring"),
    "rpg-no-sign": constrained("ring", sign=False),
    "rpg-no-permute": constrained("ring", permute=False),
    "rpg-plain": constrained("ring", permute=False, sign=False),
    "random": constrained("random"),
    "hash": constrained("hash", scope="tensor"),  # HashedNets hash every layer by itself
    "lego": Scheme(legos, (Phase(0.1, penalty=lego.balance), Phase(0.9, _freeze))),
    "deep-compression": Scheme(
        vanilla,
        (Phase(0.5), Phase(0.3, _prune), Phase(0.2, _cluster)),
        nonzeros,
        about="Trained, pruned to the DoF, trained on, and 256 values a layer, trained on.",
    ),
    "fold": constrained("fold"),
    "fastfood": constrained("fastfood"),
    "kronecker": constrained("kronecker"),
    "sparse": constrained("sparse"),
    "dense": constrained("dense"),
    "small": Scheme(small, bare=small),
}
"""Schemes by name, in the order of a table."""
