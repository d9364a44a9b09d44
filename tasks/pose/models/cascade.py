"""The attributes by which every pose network describes its maps to the task."""

from torch import nn


class Cascade(nn.Module):
    """(n, 3, size, size) images -> (n, outputs, maps, size / stride, size / stride) heat-maps.

    Attributes:
        body: the sub-networks: what the schemes of sharing act upon.
        stride: pixels of the image for one cell of a heat-map.
        parts: the joint of each map, as a number in `skeleton.JOINTS`.
        background: whether a last map follows, 1 - the largest of the others.
        everybody: for each output, whether it finds all people in the image or the first alone.
    """

    body: nn.ModuleList
    stride: int
    parts: tuple[int, ...]
    background: bool
    everybody: tuple[bool, ...]
