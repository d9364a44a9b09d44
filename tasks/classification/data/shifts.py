"""Shifts of the distribution: test images corrupted at strengths 1 to 5.

The idea is that of Hendrycks and Dietterich 2019. The numbers are ours (noise and contrast are near
ImageNet-C's), so results do not compare with published ones.
"""

from collections.abc import Callable
from math import ceil

import torch
from einops import reduce
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import rotate
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Float, Num

Shift = Callable[[Tensor, int, torch.Generator], Tensor]
"""(images (n, channels, height, width), floats in [0, 1], strength 1 to 5, generator) -> images."""

STRENGTHS: dict[str, tuple[float, ...]] = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "blur": (0.5, 0.75, 1.0, 1.5, 2.0),  # standard deviation of the Gaussian, pixels
    "rotation": (5.0, 10.0, 15.0, 20.0, 30.0),  # degrees, either way
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor on the distance from the image's mean
}
"""The parameter of each shift at strengths 1, 2, 3, 4, 5."""

Images = Num[Tensor, "n channels height width"]
Shifted = Float[Tensor, "n channels height width"]


def noise(images: Images, strength: int, generator: torch.Generator) -> Shifted:
    """Adds normal noise to every value."""
    values = torch.randn(images.shape, generator=generator, device=generator.device)
    return (images + _parameter("noise", images, strength) * values.to(images)).clamp(0, 1)


def blur(images: Images, strength: int, generator: torch.Generator) -> Shifted:
    """Blurs by a Gaussian, cut off at three standard deviations; the edge is continued outside.

    It draws no random numbers.
    """
    sigma = _parameter("blur", images, strength)
    side = 2 * ceil(3 * sigma) + 1
    blurred = gaussian_blur2d(images, (side, side), (sigma, sigma), border_type="replicate")
    return blurred.clamp(0, 1)


def rotation(images: Images, strength: int, generator: torch.Generator) -> Shifted:
    """Turns each image about its centre, to a random side; the edge is continued outside."""
    degrees = _parameter("rotation", images, strength)
    sides = torch.randint(2, (len(images),), generator=generator, device=generator.device)
    signs = sides.to(images) * 2 - 1
    return rotate(images, degrees * signs, padding_mode="border").clamp(0, 1)


def contrast(images: Images, strength: int, generator: torch.Generator) -> Shifted:
    """Brings values nearer to the mean of their image; it draws no random numbers."""
    factor = _parameter("contrast", images, strength)
    mean = reduce(images, "n channels height width -> n 1 1 1", "mean")
    return (mean + factor * (images - mean)).clamp(0, 1)


SHIFTS: dict[str, Shift] = {
    "noise": noise,
    "blur": blur,
    "rotation": rotation,
    "contrast": contrast,
}
"""Shifts by name; each raises LinconError for another strength, or images that are not floats."""


def _parameter(shift: str, images: Tensor, strength: int) -> float:
    if strength not in range(1, 6):
        raise LinconError(f"{shift} of strength {strength}: choose from 1 to 5.")
    if not images.is_floating_point():
        raise LinconError(
            f"{shift} works on floats in [0, 1], not on {images.dtype}: divide by 255."
        )
    return STRENGTHS[shift][strength - 1]
