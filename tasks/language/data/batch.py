"""A batch of the language task."""

from typing import NamedTuple

from torch import Tensor

from lincon.shapes import Int64


class Batch(NamedTuple):
    """Windows of a text.

    context: the bytes that the model reads, 0 to 255.
    following: at each place the byte that comes next.
    """

    context: Int64[Tensor, "n context"]
    following: Int64[Tensor, "n context"]
