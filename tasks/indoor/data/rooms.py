"""Furnished rooms, ray-cast when they are asked for: the data set that needs no file."""

import torch
from torch import Tensor

from lincon.counter import bits, key
from lincon.tasks.experiments.data.keyed_random import Draws
from lincon.tasks.experiments.data.synthetic import Made
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.casting import cast
from lincon.tasks.indoor.data.furnishing import rooms
from lincon.tasks.indoor.data.lighting import exposed, lamps, light
from lincon.tasks.indoor.data.surfaces import colours, materials

_STREAM = 0x726F6F6D  # sets these keys apart from other uses of the same seed


class Rooms(Made):
    """Views into furnished rooms, each surface's depth and normal known but for window panes.

    A view is a function of seed, size and its index alone, bit for bit: ``rooms[[3, 1]]`` casts
    two. Depth is exact and along the optical axis. Normals are exact, of unit length and against
    the ray; their axes are those of `Batch`: x to the right of the picture, y down and z towards
    the camera, so that a floor is about (0, -1, 0). Scanners miss glass: some 2 % of the pixels are
    nan in both.

    Args:
        count: number of views; any, as none is cast before it is asked for.
        seed: of all of them.
        size: height and width in pixels.

    Raises:
        LinconError: a count or a size that is too small; an index that is out of range.
    """

    one, many, at_once = "View", "rooms", 16

    def __init__(self, count: int, seed: int, size: int = 64) -> None:
        super().__init__(count, seed, size)

    def make(self, indices: Tensor) -> Batch:
        scene, look, noise = (bits(key(self.seed, _STREAM, stream), indices) for stream in range(3))
        extent, camera, pieces = rooms(Draws(scene), self.size)
        rays = camera.rays(self.size)
        hits = cast(camera, rays, extent, pieces.boxes())
        draws = Draws(look)
        surface = materials(draws, pieces.glazed).at(hits.material)
        falling = light(
            camera.points(rays, hits.depth), hits.normal, extent, lamps(draws, extent), pieces
        )
        glass = surface.glow > 0
        reflected = colours(hits, surface, camera.footprint(rays, hits)) * torch.where(
            glass, 1, falling
        )
        images = exposed(reflected, surface.glow, draws, noise)
        depth = hits.depth.masked_fill(glass, torch.nan)
        normals = camera.seen(hits.normal).masked_fill(glass, torch.nan).transpose(0, 1)
        return Batch(
            *(
                of.unflatten(-1, (self.size, self.size)).contiguous()
                for of in (images, depth, normals)
            )
        )
