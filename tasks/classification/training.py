"""One run: a scheme on a model and data set, trained by Lightning on a recipe that all schemes share."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lightning import Callback, Trainer, seed_everything
from torch import nn

import lincon
from lincon import LinconError
from lincon.tasks.classification.choice import choose
from lincon.tasks.classification.data import DATA, Images
from lincon.tasks.classification.history import History
from lincon.tasks.classification.models import MODELS, body_weights, count
from lincon.tasks.classification.module import Classifier
from lincon.tasks.classification.schemes import SCHEMES, degrees_of_freedom
from lincon.tensors import count as as_count


@dataclass(frozen=True)
class Recipe:
    """What all runs of a comparison have in common.

    Args:
        model: name in `MODELS`.
        data: name in `DATA`.
        dof: free numbers in the body, an int, or a float: that fraction of the body's weights.
        epochs: passes over the training images.
        learning_rate: at the top of its cycle.
        weight_decay: on every parameter.

    Raises:
        LinconError: an unknown name, or fewer than one epoch. A bad dof is refused by `build`.
    """

    model: str = "resnet-small"
    data: str = "digits"
    dof: int | float = 0.1
    epochs: int = 20
    learning_rate: float = 0.1
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        choose("model", self.model, MODELS)
        choose("data set", self.data, DATA)
        if self.epochs < 1:
            raise LinconError(f"epochs is {self.epochs}; at least 1 is needed.")


@dataclass(frozen=True)
class Run:
    """What one run came to; lists hold one entry per epoch.

    `dof` counts free numbers in the body, `total` all parameters; `file_bytes` is the size of the saved
    model; `epoch_seconds` are of training alone; `train_loss` is in nats, `test_accuracy` a fraction.
    """

    scheme: str
    seed: int
    dof: int
    total: int
    file_bytes: int
    epoch_seconds: list[float]
    train_loss: list[float]
    test_accuracy: list[float]

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch (never the best over epochs), a fraction."""
        return self.test_accuracy[-1]


def build(recipe: Recipe, scheme: str, data: type[Images], seed: int) -> nn.Module:
    """The untrained model of a scheme; equal seeds give equal initialisations and generating matrices.

    Raises LinconError for an unknown scheme, and for a dof that is not positive, a fraction above 1, or
    refused by the scheme.
    """
    make = choose("scheme", scheme, SCHEMES)
    architecture = partial(MODELS[recipe.model], data.channels, data.classes)
    whole = architecture()
    dof = as_count(recipe.dof, count(whole, body_weights(whole)))
    seed_everything(seed, verbose=False)
    return make(architecture, dof, seed)


def train(recipe: Recipe, scheme: str, seed: int, callbacks: Sequence[Callback] = ()) -> tuple[nn.Module, Run]:
    """Train one scheme with one seed; the trained model and what the run came to.

    Initialisation, order of the images and augmentation depend on the seed alone, not on the scheme.
    """
    data = DATA[recipe.data](seed)
    model = build(recipe, scheme, type(data), seed)
    module = Classifier(model, data.classes, recipe.learning_rate, recipe.weight_decay)
    history = History()
    seed_everything(seed, verbose=False)
    _fit(module, data, recipe.epochs, [history, *callbacks])
    return model, Run(
        scheme,
        seed,
        degrees_of_freedom(model),
        count(model),
        _file_bytes(model),
        history.epoch_seconds,
        history.train_loss,
        history.test_accuracy,
    )


def _fit(module: Classifier, data: Images, epochs: int, callbacks: list[Callback]) -> None:
    with _quiet():
        trainer = Trainer(
            max_epochs=epochs,
            devices=1,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            trainer.fit(module, datamodule=data)
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices, workers and loggers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        logger.setLevel(level)


def _file_bytes(model: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return lincon.save(model, Path(folder) / "model.safetensors")
