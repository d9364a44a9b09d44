"""Stacked hourglasses: a cascade of equal sub-networks that each predict heat-maps.

Newell et al. 2016.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from lincon import LinconError
from lincon.shapes import Float
from lincon.tasks.experiments.names import check_positive
from lincon.tasks.pose.models.cascade import Cascade
from lincon.tasks.pose.skeleton import JOINTS


class Hourglass(Cascade):
    """Images of (3, size, size) -> (stacks, 16, size / stride, size / stride) heat-maps.

    With its defaults it is the network of Wei Yang's pytorch-pose with one residual at every
    position: a stem of 513,152 parameters, sub-networks of 3,073,808 each, and a link of 70,144
    between every two of them.

    Args:
        size: height and width of the images in pixels.
        stacks: number of sub-networks.
        channels: of the features; the inner convolution of a residual has half as many.
        depth: how often an hourglass halves the features.
        stride: pixels of the image for one cell of a heat-map: 4 as published, 2 for small images.
        width: factor on the channels (at least 4 are left).
        reuse: use the same sub-network, norms and all, at every position. The links always differ.

    Raises:
        LinconError: ``size`` cannot be halved that often, an unknown stride, or a number that is
            not positive.

    >>> model = Hourglass(size=32, stacks=2, channels=8, depth=2)
    >>> model(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 2, 16, 8, 8])
    """

    background = False
    parts = tuple(range(len(JOINTS)))

    def __init__(
        self,
        size: int,
        *,
        stacks: int = 2,
        channels: int = 256,
        depth: int = 4,
        stride: int = 4,
        width: float = 1.0,
        reuse: bool = False,
    ) -> None:
        super().__init__()
        check_positive(size=size, stacks=stacks, channels=channels, depth=depth, width=width)
        _check_size(size, stride, depth)
        channels = max(4, round(width * channels))
        self.stride = stride
        self.everybody = (False,) * stacks
        self.stem = _stem(channels, stride)
        self.body = nn.ModuleList(
            SubNetwork(channels, len(JOINTS), depth) for _ in range(1 if reuse else stacks)
        )
        self.links = nn.ModuleList(Link(channels, len(JOINTS)) for _ in range(stacks - 1))

    def forward(
        self, images: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "n stacks 16 rows columns"]:
        inputs, maps = self.stem(images), []
        for position in range(len(self.everybody)):
            features, scores = self.body[position % len(self.body)](inputs)
            maps.append(scores)
            if position < len(self.links):
                inputs = inputs + self.links[position](features, scores)
        return torch.stack(maps, dim=1)


def _stem(channels: int, stride: int) -> nn.Sequential:
    few, half = channels // 4, channels // 2
    return nn.Sequential(
        nn.Conv2d(3, few, 7, stride=2, padding=3),
        nn.BatchNorm2d(few),
        nn.ReLU(),
        Residual(few, half),
        nn.MaxPool2d(2) if stride == 4 else nn.Identity(),
        Residual(half, channels),
        Residual(channels, channels),
    )


class Residual(nn.Module):
    """A bottleneck with pre-activation beside a shortcut.

    The shortcut is a 1x1 convolution where the number of channels changes.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.norm3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(
        self, features: Float[Tensor, "n inputs height width"]
    ) -> Float[Tensor, "n outputs height width"]:
        hidden = self.conv1(self.norm1(features).relu())
        hidden = self.conv2(self.norm2(hidden).relu())
        shortcut: Tensor = self.shortcut(features)
        residual: Tensor = self.conv3(self.norm3(hidden).relu())
        return shortcut + residual


class Scale(nn.Module):
    """One scale of an hourglass; the next one, at half the height and width, lies in its middle.

    Height and width must be divisible by two ``depth`` times.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.skip = Residual(channels, channels)
        self.down = Residual(channels, channels)
        self.middle = Scale(channels, depth - 1) if depth > 1 else Residual(channels, channels)
        self.up = Residual(channels, channels)

    def forward(
        self, features: Float[Tensor, "n channels height width"]
    ) -> Float[Tensor, "n channels height width"]:
        below = self.up(self.middle(self.down(max_pool2d(features, 2))))
        skipped: Tensor = self.skip(features)
        return skipped + interpolate(below, scale_factor=2.0)


class SubNetwork(nn.Module):
    """An hourglass: its features, and the heat-maps (scores) read off them."""

    def __init__(self, channels: int, maps: int, depth: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            Scale(channels, depth),
            Residual(channels, channels),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.scores = nn.Conv2d(channels, maps, 1)

    def forward(
        self, inputs: Float[Tensor, "n channels height width"]
    ) -> tuple[
        Float[Tensor, "n channels height width"],
        Float[Tensor, "n maps height width"],
    ]:
        features = self.features(inputs)
        return features, self.scores(features)


class Link(nn.Module):
    """Maps features and scores back to the channels of the next sub-network's input."""

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, channels, 1)
        self.scores = nn.Conv2d(maps, channels, 1)

    def forward(
        self,
        features: Float[Tensor, "n channels height width"],
        scores: Float[Tensor, "n maps height width"],
    ) -> Float[Tensor, "n channels height width"]:
        mapped_features: Tensor = self.features(features)
        mapped_scores: Tensor = self.scores(scores)
        return mapped_features + mapped_scores


def _check_size(size: int, stride: int, depth: int) -> None:
    if stride not in (2, 4):
        raise LinconError(f"Unknown stride {stride}; there are: 2, 4.")
    factor = stride * 2**depth
    if size % factor:
        raise LinconError(
            f"Images of {size} x {size} pixels do not divide by {factor}, stride {stride} x 2 to "
            f"the depth {depth}: take a size that does, such as {-(-size // factor) * factor}, or "
            "less depth."
        )
