"""Random changes of pictures, and of the joints in them alike."""

from typing import TYPE_CHECKING

from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomHorizontalFlip,
    RandomRGBShift,
)
from torch import nn

from lincon.tasks.pose.skeleton import MIRRORED

if TYPE_CHECKING:
    from lincon.tasks.pose.data.people import Batch


class Augment(nn.Module):
    """Mirror images, turns of up to 30 degrees, scales of 0.75 to 1.25, and shifts of the colours, drawn by torch.

    The values are those of pytorch-pose (Wei Yang), there of clipped Gaussians, here uniform. A mirrored person's left
    is its right: the joints change places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.change = AugmentationSequential(
            RandomHorizontalFlip(p=0.5),
            RandomAffine(degrees=30, scale=(0.75, 1.25), p=0.9),
            RandomRGBShift(0.1, 0.1, 0.1, p=1.0),
            data_keys=["input", "keypoints"],
        )

    def forward(self, batch: "Batch") -> "Batch":
        """``images``: float in [0, 1]."""
        images, points = self.change(batch.images, batch.joints.flatten(1, 2))
        matrix = self.change.transform_matrix
        assert matrix is not None  # kornia's type: None before the first call
        by = matrix[:, :2, :2].det()  # below 0 where mirrored
        joints, mirrored = points.view_as(batch.joints), (by < 0).view(-1, 1, 1)
        known = batch.known[:, :, list(MIRRORED)].where(mirrored, batch.known)
        joints = joints[:, :, list(MIRRORED)].where(mirrored.unsqueeze(-1), joints)
        return type(batch)(
            images, joints * known.unsqueeze(-1), known, batch.head * by.abs().sqrt()
        )
