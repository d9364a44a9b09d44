"""The LightningModule that trains a pose network, and where it sees joints."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

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
    """The mean squared error of the heat-maps, added up over the outputs of all sub-networks; PCKh of the last one.

    ``model``: (n, 3, size, size) -> (n, outputs, maps, height, width), with what `Hourglass` and
    `PoseMachine` say of their maps. An output that is to find everybody is compared with the maps
    of all people in the picture.
    """

    model: Cascade
    can_flip = True

    def measuring(self, data: Data) -> PCKh:
        return PCKh()

    def loss(self, batch: Batch) -> Tensor:
        outputs = self.model(batch.images)
        pairs = zip(outputs.unbind(1), self.model.everybody, strict=True)
        losses = [
            mse_loss(output, self.wanted(batch, everybody, outputs)) for output, everybody in pairs
        ]
        return torch.stack(losses).sum()

    def wanted(self, batch: Batch, everybody: bool, outputs: Tensor) -> Tensor:
        """What an output should be: (n, maps, height, width)."""
        people, parts = (slice(None) if everybody else slice(1)), list(self.model.parts)
        joints, known = batch.joints[:, people, parts], batch.known[:, people, parts]
        maps = targets(joints, known, (outputs.shape[-2], outputs.shape[-1]), self.model.stride)
        return with_background(maps) if self.model.background else maps

    def observe(self, batch: Batch) -> None:
        points, _ = find(self.model, batch.images, flip=self.flip)
        self.metric.update(points, batch.joints[:, 0], batch.known[:, 0], batch.head)


def find(model: Cascade, images: Tensor, *, flip: bool = False) -> tuple[Tensor, Tensor]:
    """Joints of the person in each picture: points (n, 16, 2), pixels of the picture, and scores (n, 16).

    NaN and 0 for joints that the model does not look for. ``images``: as a model is given them.
    ``flip``: average with what is seen in the mirror image (the flip test, which doubles the time).
    """
    maps = model(images)[:, -1]
    if flip:
        maps = (maps + unmirrored(model(images.flip(-1))[:, -1], model.parts)) / 2
    parts = list(model.parts)
    found, peaks = decode(maps[:, : len(parts)], model.stride)
    points = torch.full((len(images), len(JOINTS), 2), torch.nan, device=found.device)
    scores = torch.zeros(len(images), len(JOINTS), device=found.device)
    points[:, parts], scores[:, parts] = found, peaks
    return points, scores
