"""The LightningModule of every task.

The recipe gives optimiser and schedule, the task gives loss and metric.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lincon.counter import key
from lincon.shapes import Float
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.schemes.scheme import Phase
from lincon.tasks.experiments.training.recipe import MILESTONES, Recipe
from lincon.tasks.experiments.training.sharded import Sharded, agree, fill, shard


class Learner(lightning.LightningModule, ABC):
    """Trains a model on a task's loss plus the phase's penalty.

    It logs `train_loss`, the mean over the epoch, and the metric's values on the whole test set as
    `test_<measure>`. Random numbers of an epoch depend on the seed and the epoch alone, so a
    resumed training goes on as it would have.

    Args:
        model: trained in place.
        data: its data set.
        recipe: gives optimiser and schedule.
        phase: gives the penalty; by default none.
        seed: of augmentation and whatever else is random in training.
        first_epoch: the epoch of the whole training at which this phase begins.
    """

    can_flip = False
    """Whether the task has a flip test."""
    flip = False
    """Whether the metric sees the mean over an image and its mirror image (the flip test)."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        phase: Phase | None = None,
        seed: int = 0,
        first_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.phase = model, recipe, phase or Phase()
        self.seed, self.first_epoch = seed, first_epoch
        # The model while a sharded copy of it is trained; in a tuple, so that it is no submodule.
        self.unsharded: tuple[nn.Module, ...] = ()
        self.metric = self.make_metric(data)

    @abstractmethod
    def make_metric(self, data: Data) -> Metric | MetricCollection:
        """A metric whose `compute` gives numbers by name of the measure."""

    @abstractmethod
    def loss(self, batch: Any) -> Float[Tensor, ""]:
        """The mean loss of a prepared batch."""

    @abstractmethod
    def update_metric(self, batch: Any) -> None:
        """Update the metric with a prepared batch."""

    def compute_metric(self) -> dict[str, float]:
        """The metric's values by measure; then the metric is reset."""
        values = {name: float(value) for name, value in self.metric.compute().items()}
        self.metric.reset()
        return values

    def configure_model(self) -> None:
        """Shard the model if the strategy is `Sharded`.

        Every strategy calls this before it makes the optimiser.
        """
        if isinstance(self.trainer.strategy, Sharded) and not self.unsharded:
            self.unsharded = (self.model,)
            self.model = shard(self.model, self.trainer.strategy.device_mesh["data_parallel"])

    def gather(self) -> None:
        """After the training: give the model the values of its sharded copy, and hold it again."""
        if self.unsharded:
            (model,), self.unsharded = self.unsharded, ()
            fill(model, self.model)
            self.model = model

    def on_train_epoch_start(self) -> None:
        seed = 1_000_003 * self.seed + self.first_epoch + self.current_epoch
        # A rank is hashed into the seed: a sum would be the seed of another epoch.
        torch.manual_seed(key(seed, self.global_rank) if self.global_rank else seed)

    def training_step(self, batch: Any) -> Float[Tensor, ""]:
        loss = self.loss(batch)
        self.log(
            "train_loss",
            loss,
            on_step=False,
            on_epoch=True,
            batch_size=len(batch[0]),
            sync_dist=True,
        )
        return loss if self.phase.penalty is None else loss + self.phase.penalty(self.model)

    def on_validation_start(self) -> None:
        if self.unsharded:
            agree(self.model)

    def validation_step(self, batch: Any) -> None:
        self.update_metric(batch)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.compute_metric().items():
            self.log(f"test_{name}", value)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = _optimizer(self.recipe, self.parameters())
        scheduler = schedule(optimizer, self.recipe, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


@torch.inference_mode()
def evaluate(
    learner: Learner, data: Data, *, train: bool = False, change: Callable[[Any], Any] | None = None
) -> dict[str, float]:
    """The value of every measure over all items of a part, without augmentation.

    Of processes that train together, each measures everything by itself.

    Args:
        learner: holds the model and the metric.
        data: its data set.
        train: measure the training part instead of the test part.
        change: applied to every batch before the model sees it.
    """
    for metric in learner.metric.modules():
        if isinstance(metric, Metric):
            metric.sync_on_compute = False
    was_training, device = learner.training, next(learner.parameters()).device
    learner.eval()
    learner.metric.reset()
    for batch in data.evaluation_loader(train):
        changed = batch if change is None else change(batch)
        on_device = move_data_to_device(changed, device)
        learner.update_metric(data.prepared(on_device, training=False))
    learner.train(was_training)
    return learner.compute_metric()


def _optimizer(recipe: Recipe, parameters: Any) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "adam":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay)
    if recipe.optimiser == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=decay)
    nesterov = recipe.optimiser == "sgd"
    return torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=nesterov, weight_decay=decay)


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    """The recipe's learning-rate scheduler, over so many steps."""
    schedulers = torch.optim.lr_scheduler
    if recipe.schedule == "cycle":
        return schedulers.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=steps, cycle_momentum=False
        )
    if recipe.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, steps)
    if recipe.schedule == "exponential":
        return schedulers.LambdaLR(optimizer, lambda step: 0.01 ** (step / steps))
    shares, gamma = MILESTONES[recipe.schedule]
    milestones = sorted({max(1, round(share * steps)) for share in shares})
    return schedulers.MultiStepLR(optimizer, milestones, gamma=gamma)
