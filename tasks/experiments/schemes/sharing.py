"""Schemes that serve every task, by name: a generator on the body, or a way to make weights of less on the way.

Most are a generator and train in one phase; LegoNet and Deep Compression change what the weights are made of on the
way, and say so as phases.
"""

from torch import nn
from torch.nn.utils import prune

import lincon
from lincon import LinconError
from lincon.generators import lego
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.schemes.body import Architecture, body_weights, count_parameters
from lincon.tasks.experiments.schemes.scheme import Phase, Scheme, constrained, small, vanilla


def nonzeros(model: nn.Module) -> int:
    """Weights of the body that are not zero: how the DoF of a pruned model are counted."""
    generated = {
        name: weight for c in lincon.constraints(model) for name, weight in c.weights().items()
    }
    return sum(int(weight.count_nonzero()) for weight in generated.values())


def legos(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """Every convolution of the body made of legos whose selection is learned first.

    Half as many legos as filters, as LegoNet has by default, and so many splits of the input channels (a power of two
    that divides them) that the legos come nearest to the asked share of the layer's weights.
    """
    model = architecture()
    names = body_weights(model)
    if any(model.get_parameter(name).dim() != 4 for name in names):
        raise LinconError(
            "lego builds filters of convolutions; this model's body has other weights."
        )
    share = dof / count_parameters(model, names)
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


def _freeze(model: nn.Module, dof: int, data: Data) -> None:
    lego.freeze(model)


def _prune(model: nn.Module, dof: int, data: Data) -> None:
    """Keep the ``dof`` weights of the body that are largest in magnitude; the rest stay zero."""
    places = pruned_places(model)
    total = sum(getattr(module, name).numel() for module, name in places)
    prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=total - dof)


CENTROIDS = 255
"""Shared values a convolution: 8 bits (Han et al. 2016), of which one code is zero."""


def _cluster(model: nn.Module, dof: int, data: Data) -> None:
    """Cluster each layer's surviving weights; their values are fine-tuned from here on, zeros stay zero.

    By the mean gradient of a centroid's weights, which moves them as projected gradient descent does: Han et al. sum
    it, which at the rate of the training undoes the training.
    """
    for module, name in pruned_places(model):
        prune.remove(module, name)
    names = body_weights(model)
    kept = [int(model.get_parameter(name).count_nonzero()) for name in names]
    books = {name: max(1, min(CENTROIDS, number)) for name, number in zip(names, kept, strict=True)}
    lincon.constrain(
        model, "codebook", where=names, scope=books, scale=None, init="project", gradient="gram"
    )


def pruned_places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """(module, attribute) of every weight of the body, also while it is pruned."""
    names = (name.removesuffix("_orig") for name in body_weights(model))
    return [
        (model.get_submodule(path), attribute)
        for path, _, attribute in (name.rpartition(".") for name in names)
    ]


SHARING: dict[str, Scheme] = {
    "rpg": constrained("ring"),
    "rpg-no-sign": constrained("ring", sign=False),
    "rpg-no-permute": constrained("ring", permute=False),
    "rpg-plain": constrained("ring", permute=False, sign=False),
    "random": constrained("random"),
    "hash": constrained("hash", scope="tensor"),  # HashedNets hash every layer by itself
    "lego": Scheme(legos, (Phase(0.1, penalty=lego.balance), Phase(0.9, _freeze))),
    "deep-compression": Scheme(
        vanilla, (Phase(0.5), Phase(0.3, _prune), Phase(0.2, _cluster)), nonzeros
    ),
    "fold": constrained("fold"),
    "fastfood": constrained("fastfood"),
    "kronecker": constrained("kronecker"),
    "sparse": constrained("sparse"),
    "dense": constrained("dense"),
    "small": Scheme(small, bare=small),
}
"""Schemes by name, in the order of a table."""
