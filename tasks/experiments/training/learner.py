"""The LightningModule of every task: the recipe's optimiser and schedule, a task's loss and metric."""

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
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.schemes.scheme import Phase
from lincon.tasks.experiments.training.recipe import MILESTONES, Recipe
from lincon.tasks.experiments.training.sharded import Sharded, agree, fill, shard


class Learner(lightning.LightningModule, ABC):
    """Trains ``model``: the loss plus the phase's penalty.

    Logs `train_loss` (mean over the epoch) and, as `test_<measure>`, what the metric makes of the whole test set. What
    is drawn at random in an epoch depends on the seed and the epoch alone, so a training that is resumed goes on as it
    would have.

    Args:
        seed: of augmentation and whatever else is random in training.
        first_epoch: the epoch of the whole training at which this phase begins.
    """

    can_flip = False
    flip = False
    """Whether the metric sees the mean of an image and its mirror image, where a task can do that."""

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
        self.unsharded: tuple[
            nn.Module, ...
        ] = ()  # no submodule: the model, while a sharded copy is trained
        self.metric = self.make_metric(data)

    @abstractmethod
    def make_metric(self, data: Data) -> Metric | MetricCollection:
        """A metric whose `compute` gives numbers by name of the measure."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The mean loss of a prepared batch."""

    @abstractmethod
    def update_metric(self, batch: Any) -> None:
        """Update the metric with a prepared batch."""

    def configure_model(self) -> None:
        """Called by every strategy before it makes the optimiser."""
        if isinstance(self.trainer.strategy, Sharded) and not self.unsharded:
            self.unsharded = (self.model,)
            self.model = shard(self.model, self.trainer.strategy.device_mesh["data_parallel"])

    def gather(self) -> None:
        """After the training: the model itself again, with what its sharded copy has come to."""
        if self.unsharded:
            (model,), self.unsharded = self.unsharded, ()
            fill(model, self.model)
            self.model = model

    def on_train_epoch_start(self) -> None:
        seed = 1_000_003 * self.seed + self.first_epoch + self.current_epoch
        torch.manual_seed(
            key(seed, self.global_rank) if self.global_rank else seed
        )  # mixed: sums would meet others

    def training_step(self, batch: Any) -> Tensor:
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

    def compute_metric(self) -> dict[str, float]:
        """What the metric has seen, by measure; the metric starts anew."""
        found = {name: float(value) for name, value in self.metric.compute().items()}
        self.metric.reset()
        return found

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
    """Measures of all items of a part, without augmentation, as they are or as ``change`` makes batches of them.

    Of several processes each measures everything, by itself.
    """
    for metric in learner.metric.modules():
        if isinstance(metric, Metric):
            metric.sync_on_compute = False
    was_training, device = learner.training, next(learner.parameters()).device
    learner.eval()
    learner.metric.reset()
    for batch in data.evaluation_loader(train):
        seen = move_data_to_device(batch if change is None else change(batch), device)
        learner.update_metric(data.prepared(seen, training=False))
    learner.train(was_training)
    return learner.compute_metric()


def _optimizer(recipe: Recipe, parameters: Any) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "adam":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay)
    if recipe.optimiser == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=decay)
    return torch.optim.SGD(
        parameters, rate, momentum=0.9, nesterov=recipe.optimiser == "sgd", weight_decay=decay
    )


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    """The recipe's schedule of the learning rate, over so many steps."""
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
    return schedulers.MultiStepLR(
        optimizer, sorted({max(1, round(share * steps)) for share in shares}), gamma=gamma
    )
