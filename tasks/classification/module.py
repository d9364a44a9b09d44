"""The LightningModule that trains a classifier: loss, metric, optimiser, schedule."""

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from lincon.tasks.classification.data import Batch


class Classifier(lightning.LightningModule):
    """Cross-entropy, SGD with Nesterov momentum 0.9, one learning-rate cycle over the whole training.

    Logs `train_loss` (nats, mean over the epoch) and `test_accuracy` (fraction of all test images).

    Args:
        model: (batch, channels, height, width) -> (batch, classes) logits.
        classes: number of classes.
        learning_rate: at the top of the cycle.
        weight_decay: on every parameter, the free vector included.
    """

    def __init__(self, model: nn.Module, classes: int, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        self.model = model
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def training_step(self, batch: Batch) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def validation_step(self, batch: Batch) -> None:
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("test_accuracy", self.accuracy, batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.SGD(
            self.parameters(), self.learning_rate, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=steps, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
