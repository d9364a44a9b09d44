"""What a batch of people holds."""

from typing import NamedTuple

from torch import Tensor

from lincon.shapes import Bool, Float, Num


class Batch(NamedTuple):
    """Pictures around people.

    Coordinates are (x, y) in pixels; (0, 0) is the centre of the picture's top left pixel.

    images: uint8, or floats once a data set has prepared them.
    joints: float32, in the order of `skeleton.JOINTS`, 0 where not known. The picture is of the
        first person; the others are whoever else is in it.
    known: whether the joint is annotated. It may be hidden, or outside the picture.
    head: float32, the head size of the first person in pixels, as PCKh defines it: 0.6 x the
    diagonal of the head box.
    """

    images: Num[Tensor, "batch 3 height width"]
    joints: Float[Tensor, "batch people 16 2"]
    known: Bool[Tensor, "batch people 16"]
    head: Float[Tensor, " batch"]
