"""Heat-maps, one for each joint: made of annotated joints (targets), and read back (decoding).

Cell u of a map covers pixels stride * u to stride * u + stride - 1 of the picture, so its centre
lies at pixel stride * u + (stride - 1) / 2, and the map of a mirrored picture is the mirrored map.
"""

from collections.abc import Sequence

import torch
from einops import rearrange, reduce
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Float, Float32, Shaped
from lincon.tasks.pose.skeleton import JOINTS, MIRRORED

_REACH = 3  # standard deviations beyond which a target is 0


def targets(
    joints: Float[Tensor, "*batch 2"],
    known: Shaped[Tensor, "..."],
    shape: tuple[int, int],
    stride: int,
    sigma: float = 1.0,
) -> Float32[Tensor, "n joint height width"]:
    """The maps that a network should predict: a Gaussian with peak 1 at each known joint.

    The Gaussian's centre is the joint itself. It is not rounded to a cell, as in pytorch-pose
    (unbiased coding: DARK, Zhang et al. 2020). Values beyond three sigma are 0; where people
    overlap, the largest value counts.

    Args:
        joints: (n, people, k, 2), (x, y) in pixels of the picture.
        known: (n, people, k), bool: joints that are annotated. The others leave their map at 0.
        shape: (height, width) of a map, cells.
        stride: side of a cell, pixels.
        sigma: standard deviation, cells (1: stacked hourglass; 2: SimpleBaseline).

    Returns:
        (n, k, height, width), float32.

    Raises:
        LinconError: joints and known do not fit together, or stride or sigma is not positive.

    >>> joints, known = torch.tensor([[[[5.5, 1.5]]]]), torch.tensor([[[True]]])
    >>> maps = targets(joints, known, shape=(4, 4), stride=4)
    >>> maps[0, 0].argmax().item(), maps.max().item()
    (1, 1.0)
    """
    if joints.ndim != 4 or joints.shape[-1] != 2 or known.shape != joints.shape[:-1]:
        raise LinconError(
            f"Joints of shape {tuple(joints.shape)} with known of shape {tuple(known.shape)}: "
            "targets are made of (n, people, k, 2) and (n, people, k)."
        )
    if stride <= 0 or sigma <= 0:
        raise LinconError(f"Targets with stride {stride} and sigma {sigma}: both must be positive.")
    height, width = shape
    centres = (joints.float() - (stride - 1) / 2) / stride
    centres = centres.masked_fill(~known.bool().unsqueeze(-1), torch.inf)
    across = (torch.arange(width, device=joints.device) - centres[..., :1]).square()
    down = (torch.arange(height, device=joints.device) - centres[..., 1:]).square()
    n, people, count, _ = joints.shape
    nearest = joints.new_full((n, count, height, width), torch.inf, dtype=torch.float32)
    # One person at a time: all at once would fill memory with padding.
    for person in range(people):
        squares = down[:, person, :, :, None] + across[:, person, :, None, :]
        nearest = torch.minimum(nearest, squares)
    return torch.exp(nearest / (-2 * sigma**2)).masked_fill(nearest > (_REACH * sigma) ** 2, 0)


def with_background(
    maps: Float[Tensor, "n joint height width"],
) -> Float[Tensor, "n joint+1 height width"]:
    """Maps followed by that of the background, 1 - the largest of all (Wei et al. 2016)."""
    background = 1 - reduce(maps, "n joint height width -> n 1 height width", "max")
    return torch.cat([maps, background], 1)


def decode(
    maps: Float[Tensor, "..."], stride: int
) -> tuple[Float32[Tensor, "n joint 2"], Float32[Tensor, "n joint"]]:
    """The peaks: the highest cell, moved a quarter of a cell towards its higher neighbours.

    The move is made in x and in y alike. There is none between equal neighbours, nor across the
    edge of the map. Of equally high cells the first in reading order counts. The decoded `targets`
    of a joint are off by at most stride / 4 pixels in x and in y; in the outermost cells by at most
    stride / 2. A map that holds a NaN comes from a diverged training and counts as a map of zeros:
    its peak is 0, in the top left cell.

    Args:
        maps: (n, k, height, width).
        stride: side of a cell, pixels.

    Returns:
        points (n, k, 2), (x, y) in pixels of the picture, and peaks (n, k), the values there; both
        float32.

    Raises:
        LinconError: maps are of another shape, or empty.

    >>> maps = torch.zeros(1, 1, 4, 4)
    >>> maps[0, 0, 1, 2], maps[0, 0, 1, 1] = 1.0, 0.5
    >>> points, peaks = decode(maps, stride=4)
    >>> points.tolist(), peaks.tolist()  # cell (2, 1), moved to the left
    ([[[8.5, 5.5]]], [[1.0]])
    """
    if maps.ndim != 4 or 0 in maps.shape[2:]:
        raise LinconError(
            f"Maps of shape {tuple(maps.shape)} cannot be decoded: pass (n, k, height, width)."
        )
    height, width = maps.shape[2:]
    cells = rearrange(maps.float(), "n joint height width -> n joint (height width)")
    cells = cells.masked_fill(cells.isnan().any(-1, keepdim=True), 0)
    peak = cells.argmax(-1, keepdim=True)
    x, y = peak % width, peak // width

    def higher_side(place: Tensor, size: int, step: int) -> Tensor:
        """1 where the cell after the peak is higher than the one before it, -1 where lower."""
        step_inside = step * ((place > 0) & (place < size - 1))
        before, after = cells.gather(-1, peak - step_inside), cells.gather(-1, peak + step_inside)
        return (after > before).float() - (after < before).float()

    across, down = higher_side(x, width, 1), higher_side(y, height, width)
    points = torch.cat([x + across / 4, y + down / 4], -1)
    return stride * points + (stride - 1) / 2, cells.gather(-1, peak).squeeze(-1)


def unmirrored(maps: Float[Tensor, "*shape"], parts: Sequence[int]) -> Float[Tensor, "*shape"]:
    """Maps of mirrored pictures, brought back: mirrored again, with left and right maps exchanged.

    The flip test averages them with the maps of the pictures themselves.

    Args:
        maps: (n, k, height, width), or k + 1 maps, the last of which, the background, keeps its
            place.
        parts: the joint of each of k maps, as a number in `skeleton.JOINTS`.

    Raises:
        LinconError: there are not k or k + 1 maps, or a joint comes without its counterpart.
    """
    if maps.ndim != 4 or maps.shape[1] - len(parts) not in (0, 1):
        raise LinconError(
            f"Maps of shape {tuple(maps.shape)} of {len(parts)} joints: pass (n, k, height, "
            "width) with a map for each joint, and at most one for the background."
        )
    for part in parts:
        if MIRRORED[part] not in parts:
            raise LinconError(
                f"Maps of the {JOINTS[part]} but not of the {JOINTS[MIRRORED[part]]}: pass both."
            )
    counterparts = [parts.index(MIRRORED[part]) for part in parts]
    background = range(len(parts), maps.shape[1])
    return maps.flip(-1)[:, [*counterparts, *background]]
