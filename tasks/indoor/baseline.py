"""A baseline that does not look at the image: it predicts the mean of the training set."""

import torch
from einops import rearrange
from torch.nn.functional import normalize

from lincon.tasks.indoor.data.scenes import Scenes
from lincon.tasks.indoor.errors import Errors


def baseline(data: Scenes) -> dict[str, float]:
    """Every measure on the test set of a prediction of training's mean depth and mean normal."""
    depths, normals = [], []
    for batch in data.evaluation_loader(train=True):
        depths.append(batch.depth[~batch.depth.isnan()].double())
        vectors = rearrange(batch.normals, "n xyz height width -> n height width xyz")
        normals.append(vectors[~vectors.isnan().any(-1)].double())
    depth = torch.cat(depths).mean().float()
    normal = normalize(torch.cat(normals).mean(0), dim=0).float()
    errors = Errors()
    for batch in data.evaluation_loader(train=False):
        everywhere = depth.expand_as(batch.depth)
        directions = rearrange(normal, "xyz -> 1 xyz 1 1").expand_as(batch.normals)
        errors.update(everywhere, directions, batch.depth, batch.normals)
    return {name: float(value) for name, value in errors.compute().items()}
