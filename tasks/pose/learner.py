"""The LightningModule that trains a pose network, and the joints that such a network finds."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from lincon.shapes import Float
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.learner import Learner
from lincon.tasks.pose.data.batch import Batch
from lincon.tasks.pose.heatmaps import decode, targets, unmirrored, with_background
from lincon.tasks.pose.models.cascade import Cascade
from lincon.tasks.pose.pckh import GROUPS, PCKh
from lincon.tasks.pose.skeleton import JOINTS

MEASURES = (
    Measure("pckh", "PCKh@0.5 %"),
    Measure("pckh_joints", "mean of joints %"),
    *(Measure(g, f"{g} %") for g in GROUPS),
)


class Pose(Learner):
    """The mean squared error of the heat-maps, summed over all outputs; PCKh of the last output.

    ``model``: (n, 3, size, size) -> (n, outputs, maps, height, width), with the attributes of
    `Cascade`. An output that should find everybody is compared with the maps of all people in the
    picture.
    """

    model: Cascade
    can_flip = True

    def make_metric(self, data: Data) -> PCKh:
        return PCKh()

    def loss(self, batch: Batch) -> Tensor:
        outputs: Tensor = self.model(batch.images)
        losses = [
            mse_loss(output, self.wanted(batch, everybody, outputs))
            for output, everybody in zip(outputs.unbind(1), self.model.everybody, strict=True)
        ]
        return torch.stack(losses).sum()

    def wanted(
        self, batch: Batch, everybody: bool, outputs: Float[Tensor, "n outputs maps height width"]
    ) -> Float[Tensor, "n maps height width"]:
        """The targets of an output."""
        people, parts = (slice(None) if everybody else slice(1)), list(self.model.parts)
        joints, known = batch.joints[:, people, parts], batch.known[:, people, parts]
        maps = targets(joints, known, (outputs.shape[-2], outputs.shape[-1]), self.model.stride)
        return with_background(maps) if self.model.background else maps

    def update_metric(self, batch: Batch) -> None:
        points, _ = find(self.model, batch.images, flip=self.flip)
        self.metric.update(points, batch.joints[:, 0], batch.known[:, 0], batch.head)


def find(
    model: Cascade, images: Float[Tensor, "n 3 height width"], *, flip: bool = False
) -> tuple[Float[Tensor, "n 16 2"], Float[Tensor, "n 16"]]:
    """Joints of the person in each picture.

    Args:
        images: standardised, as the model is trained on them.
        flip: average with the prediction for the mirror image (the flip test, which doubles the
            time).

    Returns:
        points, (x, y) in pixels of the picture, and scores. Joints that the model does not look for
        have points of NaN and scores of 0.
    """
    maps = model(images)[:, -1]
    if flip:
        maps = (maps + unmirrored(model(images.flip(-1))[:, -1], model.parts)) / 2
    parts = list(model.parts)
    peaks, heights = decode(maps[:, : len(parts)], model.stride)
    points = torch.full((len(images), len(JOINTS), 2), torch.nan, device=peaks.device)
    scores = torch.zeros(len(images), len(JOINTS), device=peaks.device)
    points[:, parts], scores[:, parts] = peaks, heights
    return points, scores
