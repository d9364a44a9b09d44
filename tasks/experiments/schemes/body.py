"""What of a model may be constrained, how much that is, and how wide a dense model of as many numbers would be."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from lincon import LinconError

Architecture = Callable[..., nn.Module]
"""Makes a model: `architecture(channels, classes, size)`, with `width=0.5` one of half the width.

``size`` is the height and width of the images, in pixels. Where it says so, these three are bound already.
"""

_LAYERS = nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.RNNBase


def body_weights(model: nn.Module) -> list[str]:
    """Names of the weights that a scheme may constrain.

    The trainable ones of two or more dimensions in ``model.body`` or, of a model that has none, those of its layers
    (convolutional, linear, attention, recurrent) between the first and the last, which read images and make logits.
    Raises LinconError if there are none between.
    """
    if isinstance(getattr(model, "body", None), nn.Module):
        own = ((name, p) for name, p in model.named_parameters() if name.startswith("body."))
        return [name for name, p in own if p.dim() > 1 and p.requires_grad]
    return _between(model)


def _between(model: nn.Module) -> list[str]:
    layers: dict[str, nn.Module] = {
        n: module for n, module in model.named_modules() if isinstance(module, _LAYERS)
    }
    ends = {
        id(p)
        for module in [*layers.values()][:1] + [*layers.values()][-1:]
        for p in module.parameters()
    }
    names = [
        n for n, p in model.named_parameters() if _is_weight(n, p, layers) and id(p) not in ends
    ]
    if not names:
        raise LinconError(
            f"{type(model).__name__} has no submodule `body` and no trainable weights of layers between its first and "
            "its last: put what may be constrained in a submodule called body."
        )
    return names


def _is_weight(name: str, parameter: nn.Parameter, layers: dict[str, nn.Module]) -> bool:
    owner, _, own = name.rpartition(".")
    return owner in layers and "weight" in own and parameter.dim() > 1 and parameter.requires_grad


def count_parameters(model: nn.Module, names: Sequence[str] | None = None) -> int:
    """Number of parameters of a model, of those in ``names`` alone where given."""
    return sum(p.numel() for name, p in model.named_parameters() if names is None or name in names)


def one_sub_network(model: nn.Module) -> int:
    """Weights of the first sub-network of a cascade, whose ``body`` is a list of them."""
    return count_parameters(
        model, [name for name in body_weights(model) if name.startswith("body.0.")]
    )


def blueprint(make: Callable[[], nn.Module]) -> nn.Module:
    """A model to be counted: without memory, or for real where its constructor computes with tensors."""
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, NotImplementedError):
        with torch.random.fork_rng(devices=[]):
            return make()


def nearest_width(architecture: Architecture, total: int) -> float:
    """The width factor (at most 1) whose model is nearest to ``total`` parameters, the wider on a tie.

    ``architecture`` is called with `width=` alone: bind channels, classes and size to it before.
    """
    widths = [step / 100 for step in range(1, 101)]
    counts = {
        width: count_parameters(blueprint(partial(architecture, width=width))) for width in widths
    }
    return min(widths, key=lambda width: (abs(counts[width] - total), -width))
