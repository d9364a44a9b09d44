"""Scenes written as Stanford 2D-3D-Semantics lies on disk: what `stanford.read` reads."""

import io
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from lincon import LinconError
from lincon.tasks.experiments.writing import write_whole
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.stanford import AREAS, GREY, METRE, UNKNOWN, directions, folder

UNIT = 1e-3  # lengths of normals may differ from 1 by so much


def write(batch: Batch, root: Path, area: str, start: int = 0) -> None:
    """Write each item as one view of `area_{area}/` in ``root``: an image, depth and normals, all PNG.

    Read again at their own size, images and what is known are the same. Depth is within 1 / 1024 m,
    multiples of 1 / 512 m are exact; what is beyond 127.996 m, or nearer than 1 / 512 m, is brought
    there. Normals are within 0.73 degrees. What was read from here and is written again gives the
    same pixels. The views are read in the order in which they were written; each file is written
    whole or not at all.

    Args:
        batch: square images; its depth positive and its normals of unit length where they are
            known, which is somewhere in every item.
        root: the folder of the data set; missing folders are made.
        area: one of `stanford.AREAS`.
        start: number of the first view. A view that is there under its number is replaced.

    Raises:
        LinconError: a batch or an area that is not so, and the number of the view.
    """
    if area not in AREAS:
        raise LinconError(
            f"area {area} is none of 2D-3D-Semantics: choose from {', '.join(AREAS)}."
        )
    views = [[part.numpy(force=True) for part in view] for view in zip(*batch, strict=True)]
    for number, (image, depth, normals) in enumerate(views, start):
        check(number, image, depth, normals)
    data = folder(root, area)
    camera = blake2b(area.encode(), digest_size=16).hexdigest()
    for number, (image, depth, normals) in enumerate(views, start):
        name = f"camera_{camera}_office_1_frame_{number}_domain"
        write_whole(data / "rgb" / f"{name}_rgb.png", png(image.transpose(1, 2, 0)))
        write_whole(data / "depth" / f"{name}_depth.png", png(steps(depth)))
        write_whole(
            data / "normal" / f"{name}_normals.png", png(colours(normals).transpose(1, 2, 0))
        )


def check(number: int, image: np.ndarray, depth: np.ndarray, normals: np.ndarray) -> None:
    """Raise unless the view can be written and read again."""
    size = image.shape[-1]
    if (
        image.dtype != np.uint8
        or not image.shape == normals.shape == (3, size, size)
        or depth.shape != (size, size)
    ):
        raise LinconError(
            f"view {number} is {image.dtype} {image.shape}, depth {depth.shape} and normals "
            f"{normals.shape}: give uint8 (3, size, size), (size, size) and (3, size, size)."
        )
    if (depth <= 0).any():
        raise LinconError(
            f"view {number} has a depth of {np.nanmin(depth)} m: it must be positive, or nan."
        )
    lengths = np.sqrt((normals**2).sum(0))
    if (abs(lengths - 1) > UNIT).any():
        raise LinconError(
            f"view {number} has normals that are not of unit length: divide them by it, or give "
            "nan."
        )
    if np.isnan(depth).all() or np.isnan(lengths).all():
        raise LinconError(
            f"view {number} has no pixel with known depth, or none with known normals: leave it "
            "out."
        )


def steps(depth: np.ndarray) -> np.ndarray:
    """Metres, nan where not known -> uint16."""
    values = np.rint(depth * METRE).clip(1, UNKNOWN - 1)
    return np.where(np.isnan(depth), UNKNOWN, values).astype(np.uint16)


def colours(normals: np.ndarray) -> np.ndarray:
    """Unit vectors (3, height, width), nan where not known -> uint8.

    Rounded colours stand for vectors of about unit length, whose directions may round otherwise: 2
    % do. The second rounding is stable, for each of the 353,432 colours that a unit vector can
    round to first. None of those is (128, 128, 128): they are at least 127.5 - 0.87 away from the
    middle.
    """
    return rounded(directions(rounded(normals)))


def rounded(normals: np.ndarray) -> np.ndarray:
    """The nearest colours, grey where not known."""
    values = np.rint((normals + 1) * np.float32(127.5))
    return np.where(np.isnan(values).any(0), GREY, values).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """(height, width) uint16 or (height, width, 3) uint8, without loss."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
