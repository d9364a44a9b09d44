"""Writing scenes in the layout of Stanford 2D-3D-Semantics, which `stanford.read` reads."""

import io
from hashlib import blake2b
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image

from lincon import LinconError
from lincon.shapes import Float, UInt8, UInt16
from lincon.tasks.experiments.output import write_output
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.stanford import AREAS, GREY, METRE, UNKNOWN, directions, folder

TOLERANCE = 1e-3  # by which lengths of normals may differ from 1


def write(batch: Batch, root: Path, area: str, start: int = 0) -> None:
    """Write each item as one view of `area_{area}/` in ``root``: three PNG files.

    They hold the image, depth and normals.

    Read again at their own size, the images are the same, and the same pixels are known. Depth is
    within 1 / 1024 m, and exact for multiples of 1 / 512 m; it is clamped to the range from 1 / 512
    to 127.996 m. Normals are within 0.73 degrees. Scenes that were read from such files give the
    same pixels when they are written. The views are read in the order in which they were written;
    each file is written whole or not at all.

    Args:
        batch: square images. Known depth must be positive and known normals of unit length; every
            item needs a known pixel of each.
        root: the folder of the data set; missing folders are made.
        area: one of `stanford.AREAS`.
        start: number of the first view. An existing view of that number is replaced.

    Raises:
        LinconError: a batch that breaks these rules, with the number of the view, or an unknown
            area.
    """
    if area not in AREAS:
        raise LinconError(
            f"area {area} is none of 2D-3D-Semantics: choose from {', '.join(AREAS)}."
        )
    arrays = [tensor.numpy(force=True) for tensor in batch]
    views = list(zip(*arrays, strict=True))
    for number, (image, depth, normals) in enumerate(views, start):
        check(number, image, depth, normals)
    data = folder(root, area)
    camera = blake2b(area.encode(), digest_size=16).hexdigest()
    for number, (image, depth, normals) in enumerate(views, start):
        name = f"camera_{camera}_office_1_frame_{number}_domain"
        pixels = rearrange(image, "rgb height width -> height width rgb")
        directions = rearrange(colours(normals), "xyz height width -> height width xyz")
        write_output(data / "rgb" / f"{name}_rgb.png", png(pixels))
        write_output(data / "depth" / f"{name}_depth.png", png(steps(depth)))
        write_output(data / "normal" / f"{name}_normals.png", png(directions))


def check(number: int, image: np.ndarray, depth: np.ndarray, normals: np.ndarray) -> None:
    """Raise unless the view can be written and read again."""
    size = image.shape[-1]
    square = image.shape == normals.shape == (3, size, size) and depth.shape == (size, size)
    if image.dtype != np.uint8 or not square:
        raise LinconError(
            f"view {number} is {image.dtype} {image.shape}, depth {depth.shape} and normals "
            f"{normals.shape}: give uint8 (3, size, size), (size, size) and (3, size, size)."
        )
    if (depth <= 0).any():
        raise LinconError(
            f"view {number} has a depth of {np.nanmin(depth)} m: it must be positive, or nan."
        )
    lengths = np.sqrt((normals**2).sum(0))
    if (abs(lengths - 1) > TOLERANCE).any():
        raise LinconError(
            f"view {number} has normals that are not of unit length: divide them by it, or give "
            "nan."
        )
    if np.isnan(depth).all() or np.isnan(lengths).all():
        raise LinconError(
            f"view {number} has no pixel with known depth, or none with known normals: leave it "
            "out."
        )


def steps(depth: Float[np.ndarray, "*shape"]) -> UInt16[np.ndarray, "*shape"]:
    """Depth in metres, nan where not known, as the files store it.

    >>> steps(np.array([1.0, 2.5, np.nan])).tolist()
    [512, 1280, 65535]
    """
    values = np.rint(depth * METRE).clip(1, UNKNOWN - 1)
    return np.where(np.isnan(depth), UNKNOWN, values).astype(np.uint16)


def colours(
    normals: Float[np.ndarray, "3 ..."],
) -> UInt8[np.ndarray, "3 ..."]:
    """Unit vectors, nan where not known, as the files store them.

    A rounded colour stands for a vector of about unit length. For 2 % of the colours, its direction
    rounds to another colour. A second rounding makes all of them stable: this was tried with each
    of the 353,432 colours that a unit vector can round to. None of those is (128, 128, 128): they
    are at least 127.5 - 0.87 away from the middle.
    """
    return rounded(directions(rounded(normals)))


def rounded(
    normals: Float[np.ndarray, "3 ..."],
) -> UInt8[np.ndarray, "3 ..."]:
    """The nearest colours, grey where not known."""
    values = np.rint((normals + 1) * np.float32(127.5))
    return np.where(np.isnan(values).any(0), GREY, values).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """(height, width) uint16 or (height, width, 3) uint8, without loss."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
