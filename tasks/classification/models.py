"""Residual networks in the CIFAR form, made of a free stem, a body that may be constrained, and a free head.

A model of this task keeps what the paper constrains in the submodule ``body`` (block convolutions and 1x1
downsamples); stem, norms, biases and head stay free. Its constructor takes a ``width`` factor, so that a
narrower dense network of the same family can stand beside a constrained one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

Architecture = Callable[..., nn.Module]
"""Makes a model: `architecture()` in its own width, `architecture(width=0.5)` in half of it."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (a 1x1 convolution where the shape changes).

    (batch, inputs, height, width) -> (batch, outputs, height / stride, width / stride).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.norm1(self.conv1(images)).relu()
        return (self.norm2(self.conv2(hidden)) + self.shortcut(images)).relu()


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """(batch, channels, height, width) -> (batch, classes) logits; stages after the first halve the image.

    Args:
        channels: of the images.
        classes: number of logits.
        widths: channels of each stage.
        blocks: basic blocks in each stage.
        width: factor on all widths (each at least 1 channel).
    """

    def __init__(
        self, channels: int, classes: int, *, widths: Sequence[int], blocks: Sequence[int], width: float = 1.0
    ) -> None:
        super().__init__()
        widths = [max(1, round(width * w)) for w in widths]
        strides = [1] + [2] * (len(widths) - 1)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages = map(_stage, [widths[0], *widths], widths, strides, blocks)
        self.body = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)).mean(dim=(2, 3)))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


MODELS: dict[str, Architecture] = {
    "resnet-small": partial(ResNet, widths=(8, 16, 20), blocks=(1, 1, 1)),
    "resnet-medium": partial(ResNet, widths=(16, 32, 64), blocks=(1, 1, 1)),
}
"""Models by name: called with (channels, classes), and `width=` where another is wanted.

`resnet-small` is so small that a dense G at a tenth of its weights stays within that generator's cache.
"""


def body_weights(model: nn.Module) -> list[str]:
    """Names of the weights that a scheme may constrain: those of two or more dimensions in ``model.body``."""
    return [name for name, p in model.named_parameters() if name.startswith("body.") and p.dim() > 1]


def count(model: nn.Module, names: Sequence[str] | None = None) -> int:
    """Number of parameters of a model, of those in ``names`` alone where given."""
    return sum(p.numel() for name, p in model.named_parameters() if names is None or name in names)


def nearest_width(architecture: Architecture, total: int) -> float:
    """The width factor (at most 1) whose model is nearest to ``total`` parameters, the wider on a tie."""
    widths = [step / 100 for step in range(1, 101)]
    with torch.device("meta"):
        counts = {width: count(architecture(width=width)) for width in widths}
    return min(widths, key=lambda width: (abs(counts[width] - total), -width))
