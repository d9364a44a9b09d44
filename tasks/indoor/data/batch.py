"""What a batch of indoor scenes holds."""

from typing import NamedTuple

from torch import Tensor

from lincon.shapes import Float, Num


class Batch(NamedTuple):
    """Images with the depth and the normals that are to be regressed, both nan where not known.

    images: uint8, or floats once a data set has prepared them.
    depth: float32, metres: distance along the optical axis (z-depth).
    normals: float32, unit vectors in the camera's axes, which are those of Stanford 2D-3D-S's
    `data/` normals.
    """

    images: Num[Tensor, "batch 3 height width"]
    depth: Float[Tensor, "batch height width"]
    normals: Float[Tensor, "batch 3 height width"]
