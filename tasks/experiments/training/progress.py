"""One progress bar, in epochs, over any number of trainings."""

import sys
from typing import Any, Self

from lightning import Callback, LightningModule, Trainer

from lincon.tasks.experiments.training.ranks import is_first

_FORMAT = "{desc:<15} {bar} {n_fmt}/{total_fmt} epochs, {remaining}"


class EpochBar(Callback):
    """A callback that shows the bar, in a terminal or a notebook, and moves it; a context that ends it.

    In a terminal the bar is on the error stream; where that is a file, there is none.

    Args:
        epochs: of all trainings together.
        done: how many of them were trained before.
        quiet: show nothing.
    """

    def __init__(self, epochs: int, done: int = 0, *, quiet: bool = False) -> None:
        self._epochs, self._done, self._text = epochs, done, ""
        self._hidden = quiet or not is_first() or not (sys.stderr.isatty() or _in_notebook())
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def describe(self, text: str) -> None:
        """Set the text that says what is being trained."""
        self._text = text
        if self._bar is not None:
            self._bar.set_description_str(text)

    def start(self) -> None:
        """Show the bar."""
        if self._bar is None:
            from tqdm.auto import tqdm  # a bar of widgets in notebooks that have them

            self._bar = tqdm(
                desc=self._text,
                total=self._epochs,
                initial=self._done,
                disable=self._hidden,
                dynamic_ncols=True,
                bar_format=_FORMAT,
            )

    def advance(self, epochs: int = 1) -> None:
        """Move the bar."""
        self._bar.update(epochs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.advance()


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules
