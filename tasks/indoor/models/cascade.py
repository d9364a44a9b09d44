"""A cascade of equal sub-networks; each sees the image and the estimates of the one before."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from lincon import LinconError
from lincon.shapes import Float
from lincon.tasks.experiments.names import check_positive
from lincon.tasks.experiments.schemes.body import Architecture
from lincon.tasks.indoor.models.network import SubNetwork

REUSE = "none", "weights", "all"


class Cascade(nn.Module):
    """Standardised images -> depth and normals, as every sub-network estimates them.

    Every sub-network reads 7 channels, the image and the depth and normals of the one before it
    (zeros for the first), so that all have the same form. Gradients flow through these estimates.
    With its defaults a sub-network is SharpNet with a ResNet-18.

    Attributes:
        body: the sub-networks, or a single one that is used at every position. It holds all trained
            parameters.
        multiple: height and width of an image must be multiples of it.

    Args:
        size: height and width of the images in pixels.
        copies: number of positions.
        reuse: the common parts of the sub-networks. "none": nothing; "weights": the weights of two
            and more dimensions, not norms and biases; "all": everything, the statistics of the
            norms too.
        stride, widths, blocks: of the encoder, see `network.Encoder`.
        levels: channels of the decoders at each resolution below that of the image, coarse to fine;
            levels beyond the last resolution are not used.
        convolutions: in each level of a decoder.
        width: factor on all channels (at least 4 are left).

    Raises:
        LinconError: ``size`` cannot be halved that often, there are not enough levels, an unknown
            stride or reuse, or a number that is not positive.

    >>> model = FORMS["small"](32, copies=2)
    >>> depth, normals = model(torch.zeros(1, 3, 32, 32))
    >>> depth.shape, normals.shape
    (torch.Size([1, 2, 32, 32]), torch.Size([1, 2, 3, 32, 32]))
    """

    def __init__(
        self,
        size: int,
        *,
        copies: int = 1,
        reuse: str = "none",
        stride: int = 4,
        widths: Sequence[int] = (64, 128, 256, 512),
        blocks: int = 2,
        levels: Sequence[int] = (256, 128, 64, 64, 16),
        convolutions: int = 2,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive(
            size=size, copies=copies, blocks=blocks, convolutions=convolutions, width=width
        )
        halvings = _halvings(stride, widths)
        self.multiple = 2**halvings
        _check_size(size, self.multiple)
        if len(levels) < halvings:
            raise LinconError(
                f"{len(levels)} levels for an image that is halved {halvings} times: give one for "
                "each."
            )
        encoder, decoder = _scaled(widths, width), _scaled(levels[:halvings], width)
        self.copies = copies
        make = partial(SubNetwork, stride, encoder, blocks, decoder, convolutions)
        self.body = _sub_networks(make, copies, reuse)

    def forward(
        self, images: Float[Tensor, "n 3 height width"]
    ) -> tuple[
        Float[Tensor, "n copies height width"],
        Float[Tensor, "n copies 3 height width"],
    ]:
        """Depth, positive, metres, and normals, unit vectors."""
        depth, normals = torch.zeros_like(images[:, :1]), torch.zeros_like(images)
        depths, directions = [], []
        for position in range(self.copies):
            network = self.body[position % len(self.body)]
            depth, normals = network(torch.cat([images, depth, normals], dim=1))
            depths.append(depth.squeeze(1))
            directions.append(normals)
        return torch.stack(depths, dim=1), torch.stack(directions, dim=1)


FORMS: dict[str, Architecture] = {
    "resnet18": Cascade,
    "small": partial(
        Cascade, stride=2, widths=(16, 32, 64), blocks=1, levels=(32, 16, 8), convolutions=1
    ),
}
"""Cascades by name: `resnet18` is SharpNet but for the encoder, `small` is for 64 x 64 pixels."""


def _sub_networks(make: Callable[[], SubNetwork], copies: int, reuse: str) -> nn.ModuleList:
    if reuse not in REUSE:
        raise LinconError(f"Unknown reuse {reuse!r}; there are: {', '.join(REUSE)}.")
    if reuse == "none":
        return nn.ModuleList(make() for _ in range(copies))
    first = make()
    again = range(copies - 1 if reuse == "weights" else 0)
    return nn.ModuleList([first, *(_with_weights_of(first) for _ in again)])


def _with_weights_of(network: SubNetwork) -> SubNetwork:
    """A copy whose weights of two and more dimensions are the same Parameters."""
    return deepcopy(network, {id(p): p for p in network.parameters() if p.dim() > 1})


def _scaled(channels: Sequence[int], width: float) -> list[int]:
    return [max(4, round(width * number)) for number in channels]


def _halvings(stride: int, widths: Sequence[int]) -> int:
    if stride not in (1, 2, 4):
        raise LinconError(f"Unknown stride {stride}; there are: 1, 2, 4.")
    if not widths:
        raise LinconError("widths is empty: give the channels of one stage or more.")
    return stride // 2 + len(widths) - 1


def _check_size(size: int, factor: int) -> None:
    if size % factor:
        raise LinconError(
            f"Images of {size} x {size} pixels do not divide by {factor}, by which this network "
            f"makes them smaller: take a size that does, such as {-(-size // factor) * factor}, a "
            "smaller stride, or fewer widths."
        )
