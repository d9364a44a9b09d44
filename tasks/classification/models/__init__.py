"""Models by name: a registry, options after a colon, or any importable function that makes a model.

In a model of the registry, the weights that may be constrained are those of the submodule `body`;
stem, norms, biases, embeddings and head stay free. All models take a `width` factor, so that a
narrower dense network of the same family can stand beside a constrained one. To add a model, add a
line to `MODELS`.
"""

from functools import partial

from lincon import LinconError
from lincon.tasks.classification.models.imported import imported
from lincon.tasks.classification.models.resnet import BasicBlock as BasicBlock
from lincon.tasks.classification.models.resnet import ResNet as ResNet
from lincon.tasks.classification.models.vit import ViT as ViT
from lincon.tasks.experiments.names import named
from lincon.tasks.experiments.schemes.body import Architecture as Architecture
from lincon.tasks.experiments.schemes.body import blueprint as blueprint
from lincon.tasks.experiments.schemes.body import body_weights as body_weights
from lincon.tasks.experiments.schemes.body import count_parameters as count_parameters
from lincon.tasks.experiments.schemes.body import nearest_width as nearest_width

_resnet18 = partial(ResNet, widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))
_resnet34 = partial(ResNet, widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3))

MODELS: dict[str, Architecture] = {
    "resnet-small": partial(ResNet, widths=(8, 16, 20), blocks=(1, 1, 1)),
    "resnet-medium": partial(ResNet, widths=(16, 32, 64), blocks=(1, 1, 1)),
    "resnet14": partial(ResNet, widths=(16, 32, 64), blocks=(2, 2, 2)),
    "resnet20": partial(ResNet, widths=(16, 32, 64), blocks=(3, 3, 3)),
    "resnet32": partial(ResNet, widths=(16, 32, 64), blocks=(5, 5, 5)),
    "resnet18": _resnet18,
    "resnet34": _resnet34,
    "resnet18-imagenet": partial(_resnet18, form="imagenet"),
    "resnet34-imagenet": partial(_resnet34, form="imagenet"),
    "vit-micro": partial(ViT, dim=32, depth=2, heads=2, mlp_ratio=2.0),
    "vit-tiny": partial(ViT, dim=192, depth=12, heads=3),
    "vit-small": partial(ViT, dim=384, depth=12, heads=6),
}
"""Models by name: called with (channels, classes, size), and with `width=` for another width.

`resnet-small` is so small that a dense G at a tenth of its weights stays within that generator's
cache; `resnet14`, `resnet20` and `resnet32` have 1x1 convolutions for shortcuts, where He et al. 2016
pad, and `resnet20:stride=2` works at half the size of the image; `vit-tiny` and `vit-small` are
DeiT's (Touvron et al. 2021).
"""


def architecture(name: str) -> Architecture:
    """The architecture called ``name``.

    A name is "resnet18", "vit-tiny:patch=2,depth=6", "package.module:function" or
    "package.module:function:depth=6".

    Raises LinconError for an unknown model or option, and for a missing module or function.
    """
    model, colon, rest = name.partition(":")
    if colon and model not in MODELS:
        return imported(model, rest, MODELS)
    if model not in MODELS:
        raise LinconError(
            f"Unknown model {name!r}; there are: {', '.join(MODELS)}. One of yours is "
            "package.module:function."
        )
    return named("model", name, MODELS)
