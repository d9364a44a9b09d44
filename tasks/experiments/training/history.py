"""What a training records of every epoch."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from lightning import Callback, LightningModule, Trainer

_RECORDED = "epoch_seconds", "train_loss", "test"


@dataclass
class History(Callback):
    """Records every epoch of a training; lists have one entry per epoch.

    Args:
        epoch_seconds: of training, without the test.
        train_loss: mean over the epoch.
        test: by measure, its value on the test set.
    """

    epoch_seconds: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    test: dict[str, list[float]] = field(default_factory=dict)
    _started: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints, so that a resumed training has all its epochs."""
        return {name: deepcopy(getattr(self, name)) for name in _RECORDED}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _RECORDED:
            setattr(self, name, deepcopy(state_dict[name]))

    def replace_last_test(self, values: Mapping[str, float]) -> None:
        """Record the measures of a model that was changed after its last epoch."""
        for name, epochs in self.test.items():
            epochs[-1] = values[name]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_seconds.append(perf_counter() - self._started)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_loss.append(trainer.callback_metrics["train_loss"].item())
        for name, value in trainer.callback_metrics.items():
            if name.startswith("test_"):
                self.test.setdefault(name.removeprefix("test_"), []).append(value.item())
