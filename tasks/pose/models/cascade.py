"""What every pose network says of itself: the task reads it."""

from torch import nn


class Cascade(nn.Module):
    """(n, 3, size, size) images -> (n, outputs, maps, size / stride, size / stride) heat-maps.

    Attributes:
        body: the sub-networks: what the schemes of sharing act upon.
        stride: pixels of the image to one of the heat-maps.
        parts: the joint of `skeleton.JOINTS` that each map is of.
        background: whether there is a last map, 1 - the largest of the others.
        everybody: for each output whether it is to find all people in the image, or the first
            alone.
    """

    body: nn.ModuleList
    stride: int
    parts: tuple[int, ...]
    background: bool
    everybody: tuple[bool, ...]
