"""A baseline that does not look at the picture: it predicts the mean pose of the training set."""

import torch

from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.pckh import PCKh


def baseline(data: People) -> dict[str, float]:
    """Every measure on the test set of a prediction of each joint's mean place in training."""
    batches = [data.prepared(batch, training=False) for batch in data.evaluation_loader(train=True)]
    joints = torch.cat([batch.joints[:, 0] for batch in batches])
    known = torch.cat([batch.known[:, 0] for batch in batches]).unsqueeze(-1)
    mean = (joints * known).sum(0) / known.sum(0)
    metric = PCKh()
    for batch in data.evaluation_loader(train=False):
        people = data.prepared(batch, training=False)
        joints = people.joints[:, 0]
        metric.update(mean.expand_as(joints), joints, people.known[:, 0], people.head)
    return {name: float(value) for name, value in metric.compute().items()}
