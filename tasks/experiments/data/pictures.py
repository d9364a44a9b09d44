"""Picture files, of which some cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from lincon import LinconError
from lincon.errors import one_line
from lincon.tasks.experiments.data.remedies import remedy

_PIXELS_PER_BYTE = 2048
_MAX_PIXELS_OF_ANY = 1 << 22
"""A larger picture has at most so many pixels for each byte; an even PNG in colours has 344."""

_SIXTEEN_BITS = (1 << 16) - 1
_BITS, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # tags of TIFF; EXIF shares the last

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts a picture upright, by its orientation as EXIF has it; 1 is upright."""


def read_picture(path: Path, *, upright: bool = True) -> Image.Image:
    """The picture in a file, as every reader of pictures sees it: RGB, 8 bits a channel.

    Grey of 16 bits is divided by its own white. Numbers in floating point go from 0, black, to 1,
    white. What is transparent is laid on white, as viewers show it. Of several pictures in one file
    this is the first.

    Args:
        path: of the file.
        upright: turn the picture as its EXIF data say, which is how viewers show it. Annotations
            that count pixels as they are stored need False. Damaged EXIF data turn nothing.

    Raises:
        Unreadable: no file, no picture, a damaged one, or one whose white is not known: integers of
            32 bits, and floating point outside of 0 to 1.
    """
    try:
        with open_picture(path) as file:
            file.load()
            orientation = _orientation(file) if upright else 1
            picture = _rgb(file)
    except _UnknownWhite as reason:
        raise Unreadable(
            f"{path} {reason}: save it again with 8 or 16 bits a channel, or leave it out."
        ) from None
    except Exception as reason:  # a damaged picture can fail in any way
        raise Unreadable(
            f"{path} cannot be read as a picture ({one_line(reason)}): {_remedy(path)}, save it as "
            "PNG or JPEG, or leave it out."
        ) from None
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _remedy(path: Path) -> str:
    return remedy(path.read_bytes() if path.is_file() else b"", text=True)


class _UnknownWhite(ValueError):
    """Numbers that do not say which of them is white."""


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        return _from_integers(picture)
    if picture.mode == "F":
        return _from_floats(picture)
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        return Image.alpha_composite(ground, clear).convert("RGB")
    return picture.convert("RGB")


def _from_integers(picture: Image.Image) -> Image.Image:
    """From grey of more than 8 bits, which PIL alone would clip at 255."""
    tags: Any = getattr(picture, "tag_v2", {})
    # PIL gives grey PNG and PGM of 16 bits as integers of 32.
    if picture.mode == "I" and picture.format not in ("PNG", "PPM"):
        raise _UnknownWhite("has integers of 32 bits, and does not say which is white")
    (bits, *_) = tags.get(_BITS, (16,))
    white = (1 << bits) - 1 if bits < 16 else _SIXTEEN_BITS
    values = np.asarray(picture).astype(np.float64) / white
    return _grey(1 - values if tags.get(_PHOTOMETRIC) == 0 else values)


def _from_floats(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.float64)
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= 1:
        raise _UnknownWhite(
            f"has numbers from {low:.4g} to {high:.4g}, where 0 is black and 1 is white"
        )
    return _grey(values)


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * values).round().astype(np.uint8)).convert("RGB")


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data fail in any way, and the picture may be whole
        return 1


@contextmanager
def open_picture(path: Path, formats: list[str] | None = None) -> Iterator[Image.Image]:
    """The picture in a file, not decoded yet.

    Args:
        path: of the file.
        formats: names of the formats that are accepted, as PIL has them; None for all.

    Raises:
        ValueError: no picture of these formats, or more pixels than its bytes justify.
        Exception: whatever PIL raises for a damaged file.
    """
    if path.is_dir():
        raise ValueError("it is a folder")
    # From an open file PIL would allocate as many bytes as a chunk claims to have.
    content = path.read_bytes()
    try:
        picture = Image.open(BytesIO(content), formats=formats)
    except UnidentifiedImageError:
        kind = " or ".join(formats) if formats else "picture that Pillow reads"
        raise ValueError(f"it is no {kind}") from None
    with picture:
        if picture.width * picture.height > max(
            _MAX_PIXELS_OF_ANY, _PIXELS_PER_BYTE * len(content)
        ):
            raise ValueError(f"{picture.width} x {picture.height} pixels in {len(content)} bytes")
        yield picture


class Unreadable(LinconError):
    """A picture that is missing, cannot be decoded, or is not what it should be.

    An error of a worker process reaches the main process as the text of its traceback: the last
    line of that is the message.
    """

    def __init__(self, message: str) -> None:
        last_line = message.splitlines()[-1]
        super().__init__(last_line.removeprefix(f"{__name__}.{type(self).__name__}: "))
