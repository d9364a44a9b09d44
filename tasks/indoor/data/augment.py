"""Random changes of images, and of the normals in them alike."""

from typing import TYPE_CHECKING

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomGamma,
    RandomHorizontalFlip,
    RandomRGBShift,
)
from torch import nn

if TYPE_CHECKING:
    from lincon.tasks.indoor.data.scenes import Batch


class Augment(nn.Module):
    """Mirror images, gamma of 0.85 to 1.15 and shifts of the colours, drawn by torch.

    Mirror image and gamma are SharpNet's (Ramamonjisoa and Lepetit 2019). What is mirrored faces the other way: the
    first component of its normals changes sign. Depth stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.change = AugmentationSequential(
            RandomHorizontalFlip(p=0.5),
            RandomGamma((0.85, 1.15), p=1.0),
            RandomRGBShift(0.1, 0.1, 0.1, p=1.0),
            data_keys=["input", "mask", "mask"],
        )
        self.register_buffer(
            "opposite", torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1), persistent=False
        )

    def forward(self, batch: "Batch") -> "Batch":
        """``images``: float in [0, 1]."""
        images, depth, normals = self.change(batch.images, batch.depth.unsqueeze(1), batch.normals)
        matrix = self.change.transform_matrix
        assert matrix is not None  # kornia's type: None before the first call
        mirrored = (matrix[:, :2, :2].det() < 0).view(-1, 1, 1, 1)
        opposite = self.get_buffer("opposite").to(normals.device)
        return type(batch)(
            images, depth.squeeze(1), torch.where(mirrored, normals * opposite, normals)
        )
