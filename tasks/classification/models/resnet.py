"""Residual networks of basic blocks (He et al. 2016), in the CIFAR and in the ImageNet form."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from lincon import LinconError
from lincon.shapes import Float
from lincon.tasks.experiments.names import check_positive


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(
        self, features: Float[Tensor, "batch inputs height width"]
    ) -> Float[Tensor, "batch outputs rows columns"]:
        hidden = self.norm1(self.conv1(features)).relu()
        residual: Tensor = self.norm2(self.conv2(hidden))
        shortcut: Tensor = self.shortcut(features)
        return (residual + shortcut).relu()


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Images -> logits of the classes; stages after the first halve the image.

    Args:
        channels: of the images.
        classes: number of logits.
        size: height and width of the images in pixels, if known; it must be large enough to be
            halved for every stage.
        widths: channels of each stage.
        blocks: basic blocks in each stage.
        width: factor on all widths (each at least 1 channel).
        stride: of the first convolution of the CIFAR form: 2 halves the image, and divides the work
            by four.
        form: "cifar" begins with a 3x3 convolution; "imagenet" with a 7x7 and a maximum, which
            halve the image twice.

    Raises:
        LinconError: images of ``size`` are too small to be halved that often, an unknown form, or a
            stride that is neither 1 nor 2 or not of the CIFAR form.

    >>> import torch
    >>> model = ResNet(3, 10, size=32, widths=(8, 16), blocks=(1, 1))
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        size: int | None = None,
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        width: float = 1.0,
        stride: int = 1,
        form: Literal["cifar", "imagenet"] = "cifar",
    ) -> None:
        super().__init__()
        if form not in ("cifar", "imagenet"):
            raise LinconError(f"Unknown form {form!r}; there are: cifar, imagenet.")
        if stride not in ((1, 2) if form == "cifar" else (1,)):
            raise LinconError(
                f"stride is {stride}; the first convolution of the CIFAR form takes 1 or 2, that "
                "of the ImageNet form has its own."
            )
        of_stem = 2 if form == "imagenet" else stride - 1
        _check_size(size, len(widths) - 1 + of_stem, form)
        check_positive(width=width)
        widths = [max(1, round(width * each)) for each in widths]
        strides = [1] + [2] * (len(widths) - 1)
        self.stem = _stem(channels, widths[0], stride, form)
        stages = map(_stage, [widths[0], *widths], widths, strides, blocks)
        self.body = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1], classes)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes"]:
        features = self.body(self.stem(images)).mean(dim=(2, 3))
        logits: Tensor = self.head(features)
        return logits


def _check_size(size: int | None, halvings: int, form: str) -> None:
    if size is not None and size < 2**halvings:
        remedy = (
            "take the CIFAR form, or larger images" if form == "imagenet" else "take larger images"
        )
        raise LinconError(
            f"Images of {size} x {size} pixels cannot be halved {halvings} times: {remedy}."
        )


def _stem(channels: int, outputs: int, stride: int, form: str) -> nn.Sequential:
    after = nn.BatchNorm2d(outputs), nn.ReLU()
    if form == "cifar":
        conv = nn.Conv2d(channels, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(conv, *after)
    conv = nn.Conv2d(channels, outputs, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(conv, *after, nn.MaxPool2d(3, stride=2, padding=1))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))
