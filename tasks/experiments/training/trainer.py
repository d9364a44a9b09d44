"""Lightning's Trainer as every training uses it: its flags, its logs, and one quiet fit."""

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from lincon import LinconError
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.training import checkpoints
from lincon.tasks.experiments.training.learner import Learner
from lincon.tasks.experiments.training.ranks import devices_by_torchrun, is_first
from lincon.tasks.experiments.training.sharded import Sharded

LOGS = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
"""Kinds of logs by name."""

_HOW_LONG = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "max_time",
    "fast_dev_run",
    "overfit_batches",
    "barebones",
)
_WHAT_IS_KEPT = (
    "callbacks",
    "logger",
    "enable_checkpointing",
    "default_root_dir",
    "plugins",
)
_WHAT_IS_MEASURED = (
    "check_val_every_n_epoch",
    "val_check_interval",
    "limit_val_batches",
    "num_sanity_val_steps",
)
_ORDER_OF_ITEMS = ("reload_dataloaders_every_n_epochs", "use_distributed_sampler")
OURS = (*_HOW_LONG, *_WHAT_IS_KEPT, *_WHAT_IS_MEASURED, *_ORDER_OF_ITEMS)
"""Flags of the Trainer that lincon sets."""


def trainer_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of Lightning's Trainer in ``options``, checked.

    Raises:
        LinconError: an unknown flag, one that lincon sets, or a value that cannot work.

    >>> trainer_options({"accelerator": "cpu"})
    {'accelerator': 'cpu'}
    """
    known = [name for name in inspect.signature(Trainer).parameters if name not in OURS]
    for name, value in options.items():
        if name in OURS:
            raise LinconError(
                f"trainer.{name} is set by lincon itself: see --epochs, --images, --log and --out."
            )
        choose("flag of the Trainer", name, dict.fromkeys(known))
        _check_value(name, value)
    return dict(options)


def _check_value(name: str, value: Any) -> None:
    if value == "":
        raise LinconError(f"--trainer.{name} has no value.")
    if name == "limit_train_batches" and value == 0:
        raise LinconError("limit_train_batches=0 trains nothing.")
    if name == "precision" and str(value).endswith("-true"):
        raise LinconError(
            f"precision={value}: images are float32; give a mixed precision, as bf16-mixed."
        )


def make_logger(kind: str, folder: Path, phase: str) -> Logger:
    """A log of a phase in ``folder``; after an interruption it goes on in a folder of its own."""
    make = choose("log", kind, LOGS)
    names = (f"{kind}-{phase}{suffix}" for suffix in chain([""], (f"-{n}" for n in count(1))))
    name = next(name for name in names if not (folder / "logs" / name).exists())
    logger: Logger = make(folder, "logs", name)
    return logger


def fit(
    learner: Learner,
    data: Data,
    epochs: int,
    callbacks: Sequence[Callback],
    checkpoint: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Train quietly, from a checkpoint where one is given.

    Args:
        learner: trained in place.
        data: the training and the test items.
        epochs: after so many the training ends; those before the checkpoint count.
        callbacks: of Lightning.
        checkpoint: to go on from.
        options: of the Trainer. Without any, neither logs nor checkpoints are written.

    Raises:
        LinconError: the Trainer refuses its flags, or another process of this training failed.
    """
    with _quiet():
        trainer = _make_trainer(epochs, callbacks, options)
        try:
            with _errors_of(trainer):
                trainer.fit(
                    learner,
                    datamodule=data,
                    ckpt_path=checkpoint,
                    weights_only=True if checkpoint else None,
                )
                learner.gather()
        finally:
            # A Trainer keeps the optimiser, and lincon would warn of that when a later phase
            # replaces its parameters.
            learner.trainer = data.trainer = None


@contextmanager
def _errors_of(trainer: Trainer) -> Iterator[None]:
    """Turn Lightning's errors into those that a user should see."""
    try:
        yield
    except SystemExit:
        # Lightning turns Ctrl-C into this.
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        # The first process shows the error itself. Others may only have lost a connection.
        if is_first():
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LinconError(
            f"Process {trainer.global_rank}, or one that trains with it, failed: {reason}"
        ) from error


def _make_trainer(
    epochs: int, callbacks: Sequence[Callback], options: Mapping[str, Any] | None
) -> Trainer:
    arguments: dict[str, Any] = {
        **devices_by_torchrun(),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "plugins": [checkpoints.AtomicFiles()],
    }
    arguments |= options or {"logger": False, "enable_checkpointing": False}
    arguments |= {
        "max_epochs": epochs,
        "callbacks": list(callbacks),
        "reload_dataloaders_every_n_epochs": 1,
    }
    if arguments.get("strategy") == "fsdp":
        arguments["strategy"] = Sharded()
    try:
        return Trainer(**arguments)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise LinconError(f"Lightning's Trainer refuses its flags: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's remarks on devices, workers, processes and loggers."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
