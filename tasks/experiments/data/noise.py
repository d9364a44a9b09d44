"""Noise for synthetic pictures."""

import torch
from torch import Tensor

from lincon.counter import bits
from lincon.shapes import Float, Int64


def noise(keys: Int64[Tensor, " n"], count: int) -> Float[Tensor, "n {count}"]:
    """Numbers from -127.5 to 127.5, ``count`` for each key.

    Each integer of the counter gives eight.
    """
    counter = torch.arange(-(-count // 8)).expand(len(keys), -1)
    return bits(keys[:, None], counter).view(torch.uint8)[:, :count].float() - 127.5
