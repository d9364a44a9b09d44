"""Convolutional pose machines: stages that look again at where the last saw the parts of a body (Wei et al. 2016)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lincon import LinconError
from lincon.tasks.pose.models.cascade import Cascade

_SPREAD = 21 / 368
"""Standard deviation of the Gaussian at the centre, as a share of the image."""


class PoseMachine(Cascade):
    """(n, 3, size, size) images -> (n, stages, 15, size / 8, size / 8) heat-maps: fourteen parts and the background.

    The network of the authors' training code, genProto.py. The first stage sees the image alone.
    All others share features of the image, and see besides them the maps of the stage before, and
    where the person is that the image is of: a Gaussian at its centre.

    Args:
        size: height and width of the images in pixels: 368 as published.
        stages: number of stages, the first included.
        width: factor on all channels but those of the maps (at least 1 is left).
        reuse: one and the same stage at every position after the first.

    Raises:
        LinconError: ``size`` is not a multiple of 8, there are less than two stages, or the width
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

    def forward(self, images: Tensor) -> Tensor:
        maps, features = [self.first(images)], self.stem(images)
        centre = self.get_buffer("centre").expand(len(images), -1, -1, -1)
        for position in range(len(self.everybody) - 1):
            maps.append(self.body[position % len(self.body)](features, maps[-1], centre))
        return torch.stack(maps, dim=1)


class Stage(nn.Module):
    """(n, channels, h, w) features, (n, maps, h, w) and (n, 1, h, w) centre -> (n, maps, h, w), the maps improved."""

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

    def forward(self, features: Tensor, maps: Tensor, centre: Tensor) -> Tensor:
        return self.refine(torch.cat([self.reduce(features), maps, centre], dim=1))


def _convolution(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()


def _features(channels: int) -> list[nn.Module]:
    """From an image to features at an eighth of its height and width; pools round up, as Caffe's do."""
    inputs = (3, channels, channels)
    return [
        layer
        for n in inputs
        for layer in (*_convolution(n, channels, 9), nn.MaxPool2d(3, 2, ceil_mode=True))
    ]


def _first_maps(channels: int, narrow: int, wide: int, maps: int) -> list[nn.Module]:
    return [
        *_convolution(channels, narrow, 5),
        *(*_convolution(narrow, wide, 9), nn.Dropout(0.5)),
        *(*_convolution(wide, wide, 1), nn.Dropout(0.5)),
        nn.Conv2d(wide, maps, 1),
    ]


def _centre(size: int) -> Tensor:
    """(1, 1, size / 8, size / 8): a Gaussian in the middle of the image, averaged to the size of the maps."""
    steps = (torch.arange(size) - (size - 1) / 2) / (_SPREAD * size)
    bell = torch.exp(-steps.square() / 2)
    return avg_pool2d(torch.outer(bell, bell)[None, None], 9, stride=8, ceil_mode=True)


def _initialise(model: PoseMachine, std: float) -> None:
    """Gaussian, 0.01 at full width; wider in a narrower network, whose sums are shorter, so that it starts as loud."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


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
