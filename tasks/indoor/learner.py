"""The LightningModule that trains a network of depth and normals."""

import torch
from torch import Tensor

from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.learner import Learner
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.errors import Errors
from lincon.tasks.indoor.losses import berhu, cosine

NORMALS = 0.5
"""Weight of the loss of normals against that of depth: SharpNet's."""

MEASURES = (
    Measure("depth_rmse", "depth RMSE (m)", 1, higher_is_better=False, digits=3, decides=True),
    Measure("normal_rmse", "normal RMSE %", 100, higher_is_better=False, decides=True),
    Measure("angle_mean", "mean angle (deg)", 1, higher_is_better=False),
    Measure("angle_median", "median angle (deg)", 1, higher_is_better=False),
    Measure("abs_rel", "abs rel", 1, higher_is_better=False),
    Measure("delta", "delta < 1.25 %", 100),
)


class Regressor(Learner):
    """Reverse Huber loss of depth plus cosine loss of normals, summed over the sub-networks.

    The errors are those of the last sub-network. ``model``: (n, 3, height, width) -> depth (n,
    copies, height, width) and normals (n, copies, 3, height, width).
    """

    def make_metric(self, data: Data) -> Errors:
        return Errors()

    def loss(self, batch: Batch) -> Tensor:
        depths, directions = self.model(batch.images)
        losses = [
            berhu(depth, batch.depth) + NORMALS * cosine(normals, batch.normals)
            for depth, normals in zip(depths.unbind(1), directions.unbind(1), strict=True)
        ]
        return torch.stack(losses).sum()

    def update_metric(self, batch: Batch) -> None:
        depth, normals = self.model(batch.images)
        self.metric.update(depth[:, -1], normals[:, -1], batch.depth, batch.normals)
