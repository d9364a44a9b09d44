"""Picture files, of which some cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lincon import LinconError

_PIXELS_PER_BYTE = 2048
_MAX_PIXELS_OF_ANY = 1 << 22
"""A larger picture has at most so many pixels for each byte; an even PNG in colours has 344."""


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
    # From an open file PIL would allocate as many bytes as a chunk claims to have.
    content = path.read_bytes()
    try:
        picture = Image.open(BytesIO(content), formats=formats)
    except UnidentifiedImageError:
        raise ValueError(f"it is no {' or '.join(formats or ['picture'])}") from None
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
