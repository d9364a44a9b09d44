"""The body of a model: the weights that a scheme may constrain, and how many they are."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from lincon import LinconError

Architecture = Callable[..., nn.Module]
"""Makes a model: `architecture(channels, classes, size)`, with `width=0.5` one of half the width.

``size`` is the height and width of the images, in pixels. Where a text says so, these three
arguments are bound already.
"""

_LAYERS = nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.RNNBase


def body_weights(model: nn.Module) -> list[str]:
    """Names of the weights that a scheme may constrain.

    They are the trainable ones of two or more dimensions in ``model.body``. A model without a
    submodule of that name has as its body the layers (convolutional, linear, attention, recurrent)
    between the first and the last, which read images and make logits.

    Raises:
        LinconError: there are none.

    >>> body_weights(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)))
    ['1.weight']
    """
    if isinstance(getattr(model, "body", None), nn.Module):
        return [
            name
            for name, parameter in model.named_parameters()
            if name.startswith("body.") and parameter.dim() > 1 and parameter.requires_grad
        ]
    return _weights_between_ends(model)


def _weights_between_ends(model: nn.Module) -> list[str]:
    """Names of the weights of all layers but the first and the last."""
    layers: dict[str, nn.Module] = {
        name: module for name, module in model.named_modules() if isinstance(module, _LAYERS)
    }
    # By identity: a tensor that is tied to one of an end belongs to that end.
    ends = [*layers.values()][:1] + [*layers.values()][-1:]
    in_ends = {id(parameter) for layer in ends for parameter in layer.parameters()}
    names = [
        name
        for name, parameter in model.named_parameters()
        if _is_weight(name, parameter, layers) and id(parameter) not in in_ends
    ]
    if not names:
        raise LinconError(
            f"{type(model).__name__} has no submodule `body` and no trainable weights of layers "
            "between its first and its last: "
            "put what may be constrained in a submodule called body."
        )
    return names


def _is_weight(name: str, parameter: nn.Parameter, layers: dict[str, nn.Module]) -> bool:
    owner, _, own = name.rpartition(".")
    return owner in layers and "weight" in own and parameter.dim() > 1 and parameter.requires_grad


def count_parameters(model: nn.Module, names: Sequence[str] | None = None) -> int:
    """Number of parameters of a model, or of those in ``names`` alone.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if names is None or name in names
    )


def one_sub_network(model: nn.Module) -> int:
    """Number of weights of the first sub-network of a cascade, whose ``body`` is a list of them."""
    names = [name for name in body_weights(model) if name.startswith("body.0.")]
    return count_parameters(model, names)


def blueprint(make: Callable[[], nn.Module]) -> nn.Module:
    """A model whose parameters are to be counted.

    It takes no memory, unless its constructor computes with tensors. Random states are left alone.
    """
    try:
        with torch.device("meta"):
            return make()
    except Exception:  # what a constructor that computes does on a device without numbers
        with torch.random.fork_rng(devices=[]):
            return make()


def nearest_width(architecture: Architecture, total: int) -> float:
    """The width factor, at most 1, with which a model comes nearest to ``total`` parameters.

    Of two that are equally near it is the wider. ``architecture`` is called with `width=` alone:
    channels, classes and size must be bound to it.
    """
    widths = [step / 100 for step in range(1, 101)]
    counts = {
        width: count_parameters(blueprint(partial(architecture, width=width))) for width in widths
    }
    return min(widths, key=lambda width: (abs(counts[width] - total), -width))
