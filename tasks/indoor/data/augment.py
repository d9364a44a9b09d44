"""Random changes of images, applied to the normals in them as well."""

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomGamma,
    RandomHorizontalFlip,
    RandomRGBShift,
)
from torch import nn

from lincon.tasks.indoor.data.batch import Batch


class Augment(nn.Module):
    """Mirroring, gamma of 0.85 to 1.15 and shifts of the colours, drawn by torch.

    Mirroring and gamma are SharpNet's (Ramamonjisoa and Lepetit 2019). A mirrored surface faces the
    other way: the first component of its normals changes sign. Depth stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.change = AugmentationSequential(
            RandomHorizontalFlip(p=0.5),
            RandomGamma((0.85, 1.15), p=1.0),
            RandomRGBShift(0.1, 0.1, 0.1, p=1.0),
            data_keys=["input", "mask", "mask"],
        )
        opposite = torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
        self.register_buffer("opposite", opposite, persistent=False)

    def forward(self, batch: Batch) -> Batch:
        """``images``: floats in [0, 1]."""
        images, depth, normals = self.change(batch.images, batch.depth.unsqueeze(1), batch.normals)
        transform = self.change.transform_matrix
        assert transform is not None  # kornia's type: None before the first call
        mirrored = (transform[:, :2, :2].det() < 0).view(-1, 1, 1, 1)
        opposite = self.get_buffer("opposite").to(normals.device)
        normals = torch.where(mirrored, normals * opposite, normals)
        return Batch(images, depth.squeeze(1), normals)
