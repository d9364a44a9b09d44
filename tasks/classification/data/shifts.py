"""Shifts of the distribution: test images made worse at strengths 1 to 5, in the manner of Hendrycks, Dietterich 2019.

The numbers are ours (noise and contrast near ImageNet-C's), so results do not compare with
published ones.
"""

from collections.abc import Callable
from math import ceil

import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import rotate
from torch import Tensor

from lincon import LinconError

Shift = Callable[[Tensor, int, torch.Generator], Tensor]
"""(images (n, channels, height, width), floats in [0, 1], strength 1 to 5, generator) -> shifted images, alike."""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "blur": (0.5, 0.75, 1.0, 1.5, 2.0),  # standard deviation of the Gaussian, pixels
    "rotation": (5.0, 10.0, 15.0, 20.0, 30.0),  # degrees, either way
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor on the distance from the image's mean
}
"""What a shift does at strengths 1, 2, 3, 4, 5."""


def noise(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Adds normal noise to every value."""
    drawn = torch.randn(images.shape, generator=generator, device=generator.device)
    return (images + _number("noise", images, strength) * drawn.to(images)).clamp(0, 1)


def blur(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Blurs by a Gaussian, cut off at three standard deviations; the edge goes on outside. Draws nothing."""
    sigma = _number("blur", images, strength)
    side = 2 * ceil(3 * sigma) + 1
    return gaussian_blur2d(images, (side, side), (sigma, sigma), border_type="replicate").clamp(
        0, 1
    )


def rotation(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Turns about the centre, each image to a side drawn at random; the edge goes on outside."""
    degrees = _number("rotation", images, strength)
    sides = (
        torch.randint(2, (len(images),), generator=generator, device=generator.device).to(images)
        * 2
        - 1
    )
    return rotate(images, degrees * sides, padding_mode="border").clamp(0, 1)


def contrast(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Draws values towards the mean of their image. Draws nothing at random."""
    factor, mean = _number("contrast", images, strength), images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + factor * (images - mean)).clamp(0, 1)


SHIFTS: dict[str, Shift] = {
    "noise": noise,
    "blur": blur,
    "rotation": rotation,
    "contrast": contrast,
}
"""Shifts by name; each raises LinconError for another strength, or images that are not floats."""


def _number(shift: str, images: Tensor, strength: int) -> float:
    if strength not in range(1, 6):
        raise LinconError(f"{shift} of strength {strength}: choose from 1 to 5.")
    if not images.is_floating_point():
        raise LinconError(
            f"{shift} works on floats in [0, 1], not on {images.dtype}: divide by 255."
        )
    return STRENGTHS[shift][strength - 1]
