"""Convolutional pose machines: stages that refine the maps of the stage before.

Wei et al. 2016.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lincon import LinconError
from lincon.shapes import Float
from lincon.tasks.pose.models.cascade import Cascade

_DEVIATION = 21 / 368
"""Standard deviation of the Gaussian at the centre, as a share of the image."""


class PoseMachine(Cascade):
    """Images of (3, size, size) -> (stages, 15, size / 8, size / 8) heat-maps.

    There is a map for each of fourteen parts, and one for the background. This is the network of
    the authors' training code, genProto.py. The first stage sees the image alone. The others share
    features of the image; they also see the maps of the stage before, and a Gaussian at the centre,
    which marks the person that the image shows.

    Args:
        size: height and width of the images in pixels: 368 as published.
        stages: number of stages, the first included.
        width: factor on all channels but those of the maps (at least 1 is left).
        reuse: use the same stage at every position after the first.

    Raises:
        LinconError: ``size`` is not a multiple of 8, there are fewer than two stages, or the width
            is not positive.
    """

    stride = 8
    background = True
    parts = (9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5)

    def __init__(
        self, size: int, *, stages: int = 6, width: float = 1.0, reuse: bool = False
    ) -> None:
        super().__init__()
        _check(size, stages, width)
        narrow, channels, wide = (max(1, round(width * published)) for published in (32, 128, 512))
        maps = len(self.parts) + 1
        self.everybody = (True,) + (False,) * (stages - 1)
        self.first = nn.Sequential(*_features(channels), *_first_maps(channels, narrow, wide, maps))
        self.stem = nn.Sequential(*_features(channels))
        self.body = nn.ModuleList(
            Stage(channels, narrow, maps) for _ in range(1 if reuse else stages - 1)
        )
        self.register_buffer("centre", _centre(size), persistent=False)
        _initialise(self, std=0.01 * (128 / channels) ** 0.5)

    def forward(
        self, images: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "n stages 15 rows columns"]:
        maps, features = [self.first(images)], self.stem(images)
        centre = self.get_buffer("centre").expand(len(images), -1, -1, -1)
        for position in range(len(self.everybody) - 1):
            maps.append(self.body[position % len(self.body)](features, maps[-1], centre))
        return torch.stack(maps, dim=1)


class Stage(nn.Module):
    """A stage after the first: improves maps."""

    def __init__(self, channels: int, narrow: int, maps: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(*_convolution(channels, narrow, 5))
        self.refine = nn.Sequential(
            *_convolution(narrow + maps + 1, channels, 11),
            *_convolution(channels, channels, 11),
            *_convolution(channels, channels, 11),
            *_convolution(channels, channels, 1),
            nn.Conv2d(channels, maps, 1),
        )

    def forward(
        self,
        features: Float[Tensor, "n channels height width"],
        maps: Float[Tensor, "n maps height width"],
        centre: Float[Tensor, "n 1 height width"],
    ) -> Float[Tensor, "n maps height width"]:
        refined: Tensor = self.refine(torch.cat([self.reduce(features), maps, centre], dim=1))
        return refined


def _convolution(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()


def _features(channels: int) -> list[nn.Module]:
    """From an image to features at an eighth of its size; pools round up, as Caffe's do."""
    layers: list[nn.Module] = []
    for inputs in (3, channels, channels):
        layers += [*_convolution(inputs, channels, 9), nn.MaxPool2d(3, 2, ceil_mode=True)]
    return layers


def _first_maps(channels: int, narrow: int, wide: int, maps: int) -> list[nn.Module]:
    return [
        *_convolution(channels, narrow, 5),
        *(*_convolution(narrow, wide, 9), nn.Dropout(0.5)),
        *(*_convolution(wide, wide, 1), nn.Dropout(0.5)),
        nn.Conv2d(wide, maps, 1),
    ]


def _centre(size: int) -> Tensor:
    """(1, 1, size / 8, size / 8): a Gaussian in the middle of the image, at the maps' size."""
    steps = (torch.arange(size) - (size - 1) / 2) / (_DEVIATION * size)
    bell = torch.exp(-steps.square() / 2)
    return avg_pool2d(torch.outer(bell, bell)[None, None], 9, stride=8, ceil_mode=True)


def _initialise(model: PoseMachine, std: float) -> None:
    """Draw weights from a Gaussian.

    Its deviation is 0.01 at full width, and larger in a narrower network, whose sums have fewer
    terms, so that activations start at the same scale.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=std)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def _check(size: int, stages: int, width: float) -> None:
    if stages < 2:
        raise LinconError(
            f"A pose machine of {stages} stages has none to share: ask for 2 or more."
        )
    if size < 8 or size % 8:
        raise LinconError(
            f"Images of {size} x {size} pixels do not divide by 8, the stride of a pose machine: "
            f"take a size that does, such as {max(8, -(-size // 8) * 8)}."
        )
    if not width > 0:
        raise LinconError(f"width is {width}; it must be positive.")
