"""Heat-maps: a map for each joint, made of annotated joints (targets) and read back (decoding).

Cell u of a map covers pixels stride * u to stride * u + stride - 1 of the picture, so its centre
lies at pixel stride * u + (stride - 1) / 2, and a map of a mirrored picture is the mirrored map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lincon import LinconError
from lincon.tasks.pose.skeleton import JOINTS, MIRRORED

_REACH = 3  # standard deviations beyond which a target is 0


def targets(
    joints: Tensor, known: Tensor, shape: tuple[int, int], stride: int, sigma: float = 1.0
) -> Tensor:
    """What a network is to answer: an unnormalised Gaussian, peak 1, around each known joint.

    The Gaussian stands where the joint is: its centre is not rounded to a cell, as pytorch-pose
    does (unbiased coding: DARK, Zhang et al. 2020). It is 0 beyond three sigma; where people
    overlap, the largest value stays.

    Args:
        joints: (n, people, k, 2), (x, y) in pixels of the picture.
        known: (n, people, k), bool: joints that are annotated; the others leave their map at 0.
        shape: (height, width) of a map, cells.
        stride: side of a cell, pixels.
        sigma: standard deviation, cells (1: stacked hourglass; 2: SimpleBaseline).

    Returns:
        (n, k, height, width), float32.

    Raises:
        LinconError: joints and known do not fit together, or stride or sigma is not positive.
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
    nearest = joints.new_full(
        (len(joints), joints.shape[2], height, width), torch.inf, dtype=torch.float32
    )
    for person in range(
        joints.shape[1]
    ):  # one at a time: all at once would fill memory with padding
        nearest = torch.minimum(
            nearest, down[:, person, :, :, None] + across[:, person, :, None, :]
        )
    return torch.exp(nearest / (-2 * sigma**2)).masked_fill(nearest > (_REACH * sigma) ** 2, 0)


def with_background(maps: Tensor) -> Tensor:
    """(n, k, height, width) -> (n, k + 1, height, width): 1 - the largest of all maps comes last (Wei et al. 2016)."""
    return torch.cat([maps, 1 - maps.amax(1, keepdim=True)], 1)


def decode(maps: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Where the peaks are: the highest cell, moved by a quarter of a cell towards its higher neighbour in x and in y.

    Between equal neighbours there is no move, nor in a direction in which the cell is an outermost
    one. Of equally high cells the first in reading order counts. Decoded `targets` of a joint are
    off by at most stride / 4 pixels in x and in y; in the outermost cells by at most stride / 2. A
    map that holds a NaN, of a diverged training, counts as a map of zeros: nothing found, read as
    its top left cell with peak 0.

    Args:
        maps: (n, k, height, width).
        stride: side of a cell, pixels.

    Returns:
        points (n, k, 2), (x, y) in pixels of the picture, and peaks (n, k), the values there; both
        float32.

    Raises:
        LinconError: maps are of another shape, or empty.
    """
    if maps.ndim != 4 or 0 in maps.shape[2:]:
        raise LinconError(
            f"Maps of shape {tuple(maps.shape)} cannot be decoded: pass (n, k, height, width)."
        )
    height, width = maps.shape[2:]
    cells = maps.float().flatten(2)
    cells = cells.masked_fill(cells.isnan().any(-1, keepdim=True), 0)
    at = cells.argmax(-1, keepdim=True)
    x, y = at % width, at // width

    def side(place: Tensor, size: int, step: int) -> Tensor:
        step_inside = step * ((place > 0) & (place < size - 1))
        before, after = cells.gather(-1, at - step_inside), cells.gather(-1, at + step_inside)
        return (after > before).float() - (after < before).float()

    points = torch.cat([x + side(x, width, 1) / 4, y + side(y, height, width) / 4], -1)
    return stride * points + (stride - 1) / 2, cells.gather(-1, at).squeeze(-1)


def unmirrored(maps: Tensor, parts: Sequence[int]) -> Tensor:
    """Maps of mirrored pictures, brought back: turned over, and the maps of left and right joints exchanged.

    The flip test averages them with the maps of the pictures themselves.

    Args:
        maps: (n, k, height, width), or k + 1 maps, the last of which, the background, keeps its
            place.
        parts: (k,), the joint that each map is of, a number in `skeleton.JOINTS`.

    Returns:
        Of the shape of maps.

    Raises:
        LinconError: there are not k or k + 1 maps, or a joint has come without its counterpart.
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
    return maps.flip(-1)[:, counterparts + list(range(len(parts), maps.shape[1]))]
