"""Random changes of pictures, applied to the joints in them as well."""

from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomHorizontalFlip,
    RandomRGBShift,
)
from torch import nn

from lincon.tasks.pose.data.batch import Batch
from lincon.tasks.pose.skeleton import MIRRORED


class Augment(nn.Module):
    """Mirroring, turns of up to 30 degrees, scales of 0.75 to 1.25, and shifts of the colours.

    The ranges are those of pytorch-pose (Wei Yang), which draws clipped Gaussians; these are
    uniform. A mirrored person's left is its right, so the joints change places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.change = AugmentationSequential(
            RandomHorizontalFlip(p=0.5),
            RandomAffine(degrees=30, scale=(0.75, 1.25), p=0.9),
            RandomRGBShift(0.1, 0.1, 0.1, p=1.0),
            data_keys=["input", "keypoints"],
        )

    def forward(self, batch: Batch) -> Batch:
        """``images``: floats in [0, 1]."""
        images, points = self.change(batch.images, batch.joints.flatten(1, 2))
        transform = self.change.transform_matrix
        assert transform is not None  # kornia's type: None before the first call
        area_factor = transform[:, :2, :2].det()  # below 0 where mirrored
        mirrored = (area_factor < 0).view(-1, 1, 1)
        swapped = list(MIRRORED)
        known = batch.known[:, :, swapped].where(mirrored, batch.known)
        joints = points.view_as(batch.joints)
        joints = joints[:, :, swapped].where(mirrored.unsqueeze(-1), joints)
        head = batch.head * area_factor.abs().sqrt()
        return Batch(images, joints * known.unsqueeze(-1), known, head)
