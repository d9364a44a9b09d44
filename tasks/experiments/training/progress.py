"""One progress bar, in epochs, over any number of trainings."""

from typing import Self

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from lincon.tasks.experiments.training.ranks import is_first


class EpochBar(Callback):
    """A callback that shows the bar on the error stream and moves it; a context that ends it.

    Args:
        epochs: of all trainings together.
        done: how many of them were trained before.
        quiet: show nothing.
    """

    def __init__(self, epochs: int, done: int = 0, *, quiet: bool = False) -> None:
        self._progress = Progress(
            "{task.description:<15}",
            BarColumn(),
            MofNCompleteColumn(),
            "epochs,",
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            disable=quiet or not is_first(),
        )
        self._task = self._progress.add_task("", total=epochs, completed=done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def describe(self, text: str) -> None:
        """Set the text that says what is being trained."""
        self._progress.update(self._task, description=text)

    def start(self) -> None:
        """Show the bar."""
        self._progress.start()

    def advance(self, epochs: int = 1) -> None:
        """Move the bar."""
        self._progress.advance(self._task, epochs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.advance()
