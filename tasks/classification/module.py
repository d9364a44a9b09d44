"""The LightningModule that trains a classifier: loss, metric, optimiser, schedule."""

from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from lincon import LinconError
from lincon.tasks.classification.data import Batch
from lincon.tasks.classification.recipe import Recipe
from lincon.tasks.classification.schemes import Phase


class Classifier(lightning.LightningModule):
    """Cross-entropy (plus the phase's penalty), and the recipe's optimiser and schedule.

    Logs `train_loss` (nats, mean over the epoch) and `test_accuracy` (fraction of all test images). What is drawn at
    random in an epoch depends on the seed and the epoch alone, so a training that is resumed goes on as it would have.

    Args:
        model: (batch, channels, height, width) -> (batch, classes) logits.
        classes: number of classes.
        seed: of augmentation and whatever else is random in training.
        first: the epoch of the whole training at which this phase begins.
    """

    def __init__(self, model: nn.Module, classes: int, recipe: Recipe, phase: Phase, seed: int, first: int = 0) -> None:
        super().__init__()
        self.model, self.recipe, self.phase = model, recipe, phase
        self.seed, self.first, self.classes = seed, first, classes
        self.accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(1_000_003 * self.seed + self.first + self.current_epoch)

    def training_step(self, batch: Batch) -> Tensor:
        images, labels = batch
        logits = self(images)
        if logits.shape != (len(labels), self.classes):
            raise LinconError(
                f"The model made {tuple(logits.shape)} of {len(labels)} images of {self.classes} classes; it must make "
                f"logits of shape ({len(labels)}, {self.classes})."
            )
        loss = cross_entropy(logits, labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss if self.phase.penalty is None else loss + self.phase.penalty(self.model)

    def validation_step(self, batch: Batch) -> None:
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("test_accuracy", self.accuracy, batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        recipe, parameters = self.recipe, self.parameters()
        optimizer: torch.optim.Optimizer
        if recipe.optimiser == "adam":
            optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
        else:
            nesterov = recipe.optimiser == "sgd"
            optimizer = torch.optim.SGD(
                parameters, recipe.learning_rate, momentum=0.9, nesterov=nesterov, weight_decay=recipe.weight_decay
            )
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = _scheduler(optimizer, recipe, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    schedulers = torch.optim.lr_scheduler
    if recipe.schedule == "cycle":
        return schedulers.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, cycle_momentum=False)
    if recipe.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, steps)
    if recipe.schedule == "exponential":
        return schedulers.LambdaLR(optimizer, lambda step: 0.01 ** (step / steps))
    shares, gamma = ((0.3, 0.6, 0.8), 0.2) if recipe.schedule == "steps" else ((1 / 3, 2 / 3), 0.1)
    milestones = sorted({max(1, round(share * steps)) for share in shares})
    return schedulers.MultiStepLR(optimizer, milestones, gamma=gamma)
