"""Indoor scenes of the user's own: pictures, depth and normals in arrays."""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange

from lincon import LinconError
from lincon.tasks.experiments.data.own_pictures import (
    Arrays,
    OwnPictures,
    numbers,
    own_pictures,
    rgb,
)
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.scenes import Scenes


class OwnScenes(OwnPictures, Scenes):
    """Scenes in arrays.

    x: (n, size, size, 3) or (n, 3, size, size), uint8, or floats from 0 to 1.
    depth: (n, size, size), metres along the optical axis, above 0; NaN where not known.
    normals: (n, 3, size, size), unit vectors in the axes of `Batch`; NaN where not known.
    """

    needed = "x", "depth", "normals"
    optional = ()

    def checked(self, arrays: Arrays, what: str) -> Batch:
        images = rgb(arrays["x"], f"{what}: x")
        count, _, size, _ = images.shape
        depth = numbers(arrays["depth"], (count, size, size), f"{what}: depth")
        normals = numbers(arrays["normals"], (count, 3, size, size), f"{what}: normals")
        is_wrong = (depth <= 0) | depth.isinf()
        if bool(is_wrong.any()) or bool(depth.isnan().all()):
            found = f"{float(depth[is_wrong][0]):g}" if bool(is_wrong.any()) else "NaN everywhere"
            raise LinconError(
                f"{what}: depth holds {found}: give metres above 0, and NaN where it is not known."
            )
        lengths = normals.norm(dim=1)
        known = lengths.isfinite()
        if not bool(known.any()) or float((lengths[known] - 1).abs().max()) > 0.01:
            raise LinconError(
                f"{what}: normals are not unit vectors: divide by their length, and give NaN where "
                "they are not known."
            )
        everywhere = rearrange(known, "n height width -> n 1 height width")
        return Batch(images, depth, normals.where(everywhere, torch.nan))


def own_data(name: str) -> Callable[..., Any] | None:
    """The data set of a .npz file or a function, see `own_pictures`."""
    return own_pictures(OwnScenes, name)
