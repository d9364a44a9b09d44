"""People of the user's own: pictures and joints in arrays."""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange

from lincon import LinconError
from lincon.tasks.experiments.data.own_pictures import (
    Arrays,
    OwnPictures,
    numbers,
    own_pictures,
    rgb,
)
from lincon.tasks.pose.data.batch import Batch
from lincon.tasks.pose.data.lsp import HEAD, NECK, TOP
from lincon.tasks.pose.data.people import People


class OwnPeople(OwnPictures, People):
    """People in arrays.

    x: (n, size, size, 3) or (n, 3, size, size), a picture around each person, uint8, or floats from
        0 to 1.
    joints: (n, 16, 2) in the order of `skeleton.JOINTS`, or (n, people, 16, 2) with everybody in the
        picture, the person first; (x, y) in pixels, (0, 0) the centre of the top left one; NaN where
        not known.
    head: (n,), the head size in pixels as PCKh counts it; by default as in LSP, from the distance
        of neck and head top.
    """

    needed = "x", "joints"
    optional = ("head",)

    def checked(self, arrays: Arrays, what: str) -> Batch:
        images = rgb(arrays["x"], f"{what}: x")
        count = len(images)
        is_crowd = getattr(arrays["joints"], "ndim", 3) == 4
        shape = (count, None, 16, 2) if is_crowd else (count, 16, 2)
        joints = numbers(arrays["joints"], shape, f"{what}: joints")
        joints = joints if is_crowd else rearrange(joints, "n joints xy -> n 1 joints xy")
        known = joints.isfinite().all(-1)
        joints = joints.where(rearrange(known, "n people joints -> n people joints 1"), 0)
        if not bool(known.any()) or float(joints.abs().max()) <= 1:
            raise LinconError(f"{what}: joints lie within one pixel: give (x, y) in pixels.")
        first = joints[:, 0]
        length = (first[:, TOP] - first[:, NECK]).norm(dim=-1)
        is_known = known[:, 0, TOP] & known[:, 0, NECK] & (length > 0)
        head = (HEAD * length).where(is_known, torch.nan)
        if "head" in arrays:
            head = numbers(arrays["head"], (count,), f"{what}: head")
        if not bool((head > 0).any()):
            raise LinconError(
                f"{what}: no head size is known, so PCKh cannot be counted: give head."
            )
        return Batch(images, joints, known, head)


def own_data(name: str) -> Callable[..., Any] | None:
    """The data set of a .npz file or a function, see `own_pictures`."""
    return own_pictures(OwnPeople, name)
