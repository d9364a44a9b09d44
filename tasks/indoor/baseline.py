"""What a prediction without looking comes to: the mean of the training set, everywhere."""

import torch

from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.scenes import Scenes
from lincon.tasks.indoor.errors import Errors


def baseline(data: Scenes) -> dict[str, float]:
    """Every measure of the mean depth and the direction of the mean normal of the training set, on the test set."""
    depths, normals = [], []
    for batch in data.evaluation_loader(train=True):
        known = ~batch.depth.isnan()
        depths.append(batch.depth[known].double())
        normals.append(batch.normals.movedim(1, -1)[~batch.normals.isnan().any(1)].double())
    depth = torch.cat(depths).mean().float()
    normal = torch.nn.functional.normalize(torch.cat(normals).mean(0), dim=0).float()
    errors = Errors()
    for batch in data.evaluation_loader(train=False):
        errors.update(*_everywhere(batch, depth, normal), batch.depth, batch.normals)
    return {name: float(value) for name, value in errors.compute().items()}


def _everywhere(
    batch: Batch, depth: torch.Tensor, normal: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return depth.expand_as(batch.depth), normal.view(1, 3, 1, 1).expand_as(batch.normals)
