"""Furnished rooms, which are ray-cast when they are asked for and need no file."""

import torch
from einops import rearrange
from torch import Tensor

from lincon.counter import bits, key
from lincon.tasks.experiments.data.keyed_random import KeyedRandom
from lincon.tasks.experiments.data.synthetic import Synthetic
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.casting import cast
from lincon.tasks.indoor.data.furnishing import rooms
from lincon.tasks.indoor.data.lighting import exposed, lamps, light
from lincon.tasks.indoor.data.surfaces import colours, materials

_STREAM = 0x726F6F6D  # sets these keys apart from other uses of the same seed


class Rooms(Synthetic):
    """Views into furnished rooms, each surface's depth and normal known but for window panes.

    A view depends on seed, size and its index alone, bit for bit: ``rooms[[3, 1]]`` casts two.
    Depth is exact and along the optical axis. Normals are exact, of unit length and against the
    ray; their axes are those of `Batch`: x to the right of the picture, y down and z towards the
    camera, so that a floor is about (0, -1, 0). Scanners miss glass, so about 2 % of the pixels are
    nan in both.

    Args:
        count: number of views; any number will do, as none is cast before it is asked for.
        seed: of all of them.
        size: height and width in pixels.

    Raises:
        LinconError: a count or a size that is too small; an index that is out of range.

    >>> batch = Rooms(count=10, seed=0, size=32)[[3, 1]]
    >>> batch.images.shape, batch.depth.shape, batch.normals.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 32, 32]), torch.Size([2, 3, 32, 32]))
    """

    singular, plural, chunk = "View", "rooms", 16

    def __init__(self, count: int, seed: int, size: int = 64) -> None:
        super().__init__(count, seed, size)

    def make(self, indices: Tensor) -> Batch:
        scene, look, noise = (bits(key(self.seed, _STREAM, stream), indices) for stream in range(3))
        extent, camera, pieces = rooms(KeyedRandom(scene), self.size)
        rays = camera.rays(self.size)
        hits = cast(camera, rays, extent, pieces.boxes())
        draws = KeyedRandom(look)
        surface = materials(draws, pieces.glazed).at(hits.material)
        points = camera.points(rays, hits.depth)
        falling = light(points, hits.normal, extent, lamps(draws, extent), pieces)
        glass = surface.glow > 0
        shares = colours(hits, surface, camera.footprint(rays, hits))
        images = exposed(shares * torch.where(glass, 1, falling), surface.glow, draws, noise)
        depth = hits.depth.masked_fill(glass, torch.nan)
        normals = camera.seen(hits.normal).masked_fill(glass, torch.nan)
        tensors = images, depth, rearrange(normals, "xyz n pixels -> n xyz pixels")
        rows = [rearrange(part, "... (y x) -> ... y x", y=self.size) for part in tensors]
        return Batch(*(part.contiguous() for part in rows))
