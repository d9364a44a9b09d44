"""What a prediction without looking comes to: the mean pose of the training set, everywhere."""

import torch

from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.pckh import PCKh


def baseline(data: People) -> dict[str, float]:
    """Every measure of the mean place of each joint in the training set, on the test set."""
    batches = [data.prepared(batch, training=False) for batch in data.evaluation_loader(train=True)]
    joints = torch.cat([batch.joints[:, 0] for batch in batches])
    known = torch.cat([batch.known[:, 0] for batch in batches]).unsqueeze(-1)
    mean = (joints * known).sum(0) / known.sum(0)
    metric = PCKh()
    for batch in data.evaluation_loader(train=False):
        seen = data.prepared(batch, training=False)
        metric.update(
            mean.expand_as(seen.joints[:, 0]), seen.joints[:, 0], seen.known[:, 0], seen.head
        )
    return {name: float(value) for name, value in metric.compute().items()}
