"""The LightningModule that trains a classifier, and its accuracy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lincon import LinconError
from lincon.tasks.classification.data import Batch, Images
from lincon.tasks.classification.data.images import floats
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.learner import Learner, evaluate
from lincon.tasks.experiments.training.recipe import Recipe

MEASURES = (
    Measure("accuracy", "accuracy %", decides=True, counts_items=True),
    Measure("cross_entropy", "cross-entropy", 1, higher_is_better=False, digits=4, decides=True),
)


class CrossEntropy(Metric):
    """The mean cross-entropy of all items, in nats."""

    total: Tensor
    items: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "items"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.total += cross_entropy(logits.float(), labels, reduction="sum").double()
        self.items += len(labels)

    def compute(self) -> Tensor:
        return self.total / self.items


class Classifier(Learner):
    """Cross-entropy in nats; the accuracy is the share of all test images.

    ``model``: (batch, channels, height, width) -> (batch, classes) logits.
    """

    def make_metric(self, data: Data) -> MetricCollection:
        assert isinstance(data, Images)
        self.classes = data.classes
        accuracy = MulticlassAccuracy(data.classes, average="micro")
        return MetricCollection({"accuracy": accuracy, "cross_entropy": CrossEntropy()})

    def loss(self, batch: Batch) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        if logits.shape != (len(labels), self.classes):
            raise LinconError(
                f"The model made {tuple(logits.shape)} of {len(labels)} images of {self.classes} "
                f"classes; it must make logits of shape ({len(labels)}, {self.classes})."
            )
        return cross_entropy(logits, labels)

    def update_metric(self, batch: Batch) -> None:
        images, labels = batch
        self.metric.update(self.model(images), labels)


def accuracy(
    model: nn.Module,
    data: Images,
    *,
    train: bool = False,
    shift: Callable[[Tensor], Tensor] | None = None,
) -> float:
    """The accuracy on all images of one part, a fraction.

    ``shift`` changes images, floats in [0, 1], first.
    """

    def shifted(batch: Batch) -> Batch:
        images, labels = batch
        return Batch(images if shift is None else shift(floats(images)), labels)

    classifier = Classifier(model, data, Recipe())
    return evaluate(classifier, data, train=train, change=shifted)["accuracy"]
