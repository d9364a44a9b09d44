"""What a training leaves behind, epoch by epoch."""

from copy import deepcopy
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from lightning import Callback, LightningModule, Trainer


@dataclass
class History(Callback):
    """Records every epoch: seconds of training (without the test), mean training loss, and each measure of the test."""

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

    def measured_again(self, found: dict[str, float]) -> None:
        """The test of the last epoch, of a model that was changed since."""
        for name, values in self.test.items():
            values[-1] = found[name]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_seconds.append(perf_counter() - self._started)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.train_loss.append(trainer.callback_metrics["train_loss"].item())
        for name, value in trainer.callback_metrics.items():
            if name.startswith("test_"):
                self.test.setdefault(name.removeprefix("test_"), []).append(value.item())


_RECORDED = "epoch_seconds", "train_loss", "test"
