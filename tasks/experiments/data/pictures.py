"""Pictures on disk, of which some cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lincon import LinconError

PIXELS_A_BYTE, PLENTY = 2048, 1 << 22
"""A file holds at most so many pixels a byte (an even PNG in colours has 344), or four million."""


@contextmanager
def open_picture(path: Path, formats: list[str] | None = None) -> Iterator[Image.Image]:
    """The picture in a file, not decoded yet.

    Raises ValueError for one of more pixels than its bytes justify, and whatever PIL raises for a damaged one.
    """
    content = (
        path.read_bytes()
    )  # PIL takes memory for as many bytes as a chunk claims, if it reads from a file
    try:
        picture = Image.open(BytesIO(content), formats=formats)
    except UnidentifiedImageError:
        raise ValueError(f"it is no {' or '.join(formats or ['picture'])}") from None
    with picture:
        if picture.width * picture.height > max(PLENTY, PIXELS_A_BYTE * len(content)):
            raise ValueError(f"{picture.width} x {picture.height} pixels in {len(content)} bytes")
        yield picture


class Unreadable(LinconError):
    """A picture that is missing, cannot be decoded, or is not what it should be.

    A worker's error reaches the main process as the text of its traceback, whose last line is the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            message.splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: ")
        )
