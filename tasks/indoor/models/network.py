"""A sub-network: an encoder of residual blocks, and a decoder for each of depth and normals.

It follows SharpNet (Ramamonjisoa and Lepetit 2019), with differences. SharpNet's encoder is a
ResNet-50 whose last stage is dilated; this one has basic blocks and halves as ResNet-18 does.
SharpNet's decoders have more convolutions at the two coarsest resolutions, a batch norm after the
last convolution, a ReLU for the depth, and a tanh before the normals are brought to unit length.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, softplus

from lincon.shapes import Float

INPUTS = 7
"""Channels that a sub-network reads: an image (3), and earlier depth (1) and normals (3)."""

_SHORTEST = 1e-6  # a shorter vector has no direction


class SubNetwork(nn.Module):
    """An encoder and two decoders; see them for the arguments.

    Height and width must be divisible by two as often as the decoders have ``levels``.
    """

    def __init__(
        self,
        stride: int,
        widths: Sequence[int],
        blocks: int,
        levels: Sequence[int],
        convolutions: int,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(stride, widths, blocks)
        self.depth = Decoder(self.encoder.channels, levels, convolutions, outputs=1)
        self.normals = Decoder(self.encoder.channels, levels, convolutions, outputs=3)

    def forward(
        self, inputs: Float[Tensor, "n 7 height width"]
    ) -> tuple[Float[Tensor, "n 1 height width"], Float[Tensor, "n 3 height width"]]:
        """Depth, metres, and normals, unit vectors."""
        features = self.encoder(inputs)
        return softplus(self.depth(features)), unit(self.normals(features))


class Encoder(nn.Module):
    """(n, 7, height, width) -> the last features at each resolution, coarse to fine.

    ``channels`` are theirs.

    Args:
        stride: pixels for one cell of the first stage's features. 4: a 7x7 convolution of stride 2
            and a maximum, which halve the image twice, as in ResNet-18; 2 and 1: a 3x3 convolution
            of that stride.
        widths: channels of the stages, each of which halves the features but the first.
        blocks: basic blocks in each stage.
    """

    def __init__(self, stride: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        first = _stage(widths[0], widths[0], 1, blocks)
        if stride == 4:
            parts = [
                _convolution(INPUTS, widths[0], 7, 2),
                nn.Sequential(nn.MaxPool2d(3, 2, padding=1), first),
            ]
        else:
            parts = [nn.Sequential(_convolution(INPUTS, widths[0], 3, stride), first)]
        later = (_stage(widths[i], widths[i + 1], 2, blocks) for i in range(len(widths) - 1))
        self.parts = nn.ModuleList([*parts, *later])
        self.channels = [*widths[::-1], *([widths[0]] if stride == 4 else [])]

    def forward(self, inputs: Float[Tensor, "n 7 height width"]) -> list[Float[Tensor, "n _ _ _"]]:
        features = [inputs]
        for part in self.parts:
            features.append(part(features[-1]))
        return features[:0:-1]


class Decoder(nn.Module):
    """Features, coarse to fine -> outputs, at twice the resolution for each of the levels.

    A level has 3x3 convolutions. Its output is enlarged to twice the size and joined to the
    encoder's features of that resolution, if there are any. A 3x3 convolution without a norm comes
    last.

    Args:
        channels: of the features.
        levels: channels of the convolutions of each level, coarse to fine.
        convolutions: number of them in each level.
    """

    def __init__(
        self, channels: Sequence[int], levels: Sequence[int], convolutions: int, outputs: int
    ) -> None:
        super().__init__()
        joined = [*channels[1:], 0][: len(levels)]
        inputs = [channels[0], *(own + other for own, other in zip(levels, joined, strict=True))]
        self.levels = nn.ModuleList(
            _level(inputs[i], own, convolutions) for i, own in enumerate(levels)
        )
        self.out = nn.Conv2d(inputs[-1], outputs, 3, padding=1)

    def forward(
        self, features: list[Float[Tensor, "n _ _ _"]]
    ) -> Float[Tensor, "n outputs height width"]:
        hidden = features[0]
        for i, level in enumerate(self.levels, start=1):
            hidden = interpolate(level(hidden), scale_factor=2.0, mode="bilinear")
            hidden = torch.cat([hidden, *features[i : i + 1]], dim=1)
        output: Tensor = self.out(hidden)
        return output


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016).

    The shortcut is a 1x1 convolution where the shape changes.

    (n, inputs, height, width) -> (n, outputs, height / stride, width / stride).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3, relu=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if same else _convolution(inputs, outputs, 1, stride, relu=False)
        )

    def forward(
        self, features: Float[Tensor, "n inputs height width"]
    ) -> Float[Tensor, "n outputs rows columns"]:
        residual: Tensor = self.second(self.first(features))
        shortcut: Tensor = self.shortcut(features)
        return (residual + shortcut).relu()


def unit(vectors: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
    """The vectors at length 1; a vector without a direction becomes (0, 0, 1), without a gradient.

    >>> unit(torch.tensor([0.0, 3.0, 4.0]).view(1, 3, 1, 1)).flatten().tolist()
    [0.0, 0.6000000238418579, 0.800000011920929]
    """
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    towards_camera = pad(torch.ones_like(lengths), (0, 0, 0, 0, 2, 0))
    scaled: Tensor = vectors / lengths.clamp(min=_SHORTEST)
    return scaled.where(~(lengths < _SHORTEST), towards_camera)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, *, relu: bool = True
) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride),
        *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)),
    )


def _level(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    more = (_convolution(outputs, outputs, 3) for _ in range(convolutions - 1))
    return nn.Sequential(_convolution(inputs, outputs, 3), *more)
