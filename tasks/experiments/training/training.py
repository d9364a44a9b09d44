"""One training: a scheme on a model and data set of a task, by Lightning, on a recipe that all schemes share."""

import gc
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import nn

import lincon
from lincon import LinconError
from lincon.attaching.targets import count
from lincon.files.atomic import remove_partial
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.schemes.body import (
    Architecture,
    blueprint,
    body_weights,
    count_parameters,
)
from lincon.tasks.experiments.schemes.scheme import Scheme
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training import checkpoints
from lincon.tasks.experiments.training.history import History
from lincon.tasks.experiments.training.learner import Learner, evaluate
from lincon.tasks.experiments.training.ranks import devices_by_torchrun, is_first
from lincon.tasks.experiments.training.recipe import Cell, Recipe, describe, differences
from lincon.tasks.experiments.training.sharded import Sharded

SAVED = "model.safetensors"
RECORD = "training.json"
UNFINISHED = "unfinished"
"""In the record of a training that has not ended: a model in its folder is of an earlier one."""
LOGS = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
OURS = (
    *(
        "max_epochs",
        "min_epochs",
        "max_steps",
        "min_steps",
        "max_time",
        "fast_dev_run",
        "overfit_batches",
        "barebones",
    ),
    *(
        "callbacks",
        "logger",
        "enable_checkpointing",
        "default_root_dir",
        "reload_dataloaders_every_n_epochs",
    ),
    *("check_val_every_n_epoch", "val_check_interval", "limit_val_batches", "num_sanity_val_steps"),
    *("use_distributed_sampler", "plugins"),
)
"""Arguments of the Trainer that are set here: how long is trained, what is measured when, and what is kept."""


@dataclass(frozen=True)
class Run:
    """What one training came to; lists hold one entry per epoch.

    `asked` is the DoF asked for, `dof` the free numbers in the body, `total` all parameters; `file_bytes` is the size
    of the saved model; `epoch_seconds` are of training alone. `test` has, by measure, what was measured on the test set
    after each epoch; `train` the same of the trained model on the training items as they are, without augmentation. The
    task's first measure is its score. `note` says what must be known of the data, such as how they were split.
    """

    model: str
    scheme: str
    asked: int | float | None
    seed: int
    dof: int
    total: int
    file_bytes: int
    epoch_seconds: list[float]
    train_loss: list[float]
    test: dict[str, list[float]]
    train: dict[str, float]
    note: str = ""

    @property
    def curve(self) -> list[float]:
        """The score on the test set after each epoch."""
        return next(iter(self.test.values()))

    @property
    def score(self) -> float:
        """The score on the test set after the last epoch (never the best over epochs)."""
        return self.curve[-1]

    @property
    def train_score(self) -> float:
        """The score of the trained model on the training set."""
        return next(iter(self.train.values()))


def open_data(recipe: Recipe, seed: int, root: Path | None = None) -> Any:
    """The recipe's data set; ``root``: the folder where it lies, where it is not embedded."""
    return find_task(recipe.task).data_set(recipe.data)(seed, recipe.batch, root, recipe.images)


def build(cell: Cell, shape: Sequence[int]) -> nn.Module:
    """The untrained model of a cell, for data of that shape; equal seeds give equal initialisations and matrices G.

    Raises LinconError for a dof that is not positive, a fraction above 1, or refused by the scheme.
    """
    seed_everything(cell.seed, verbose=False)
    return _scheme(cell).make(_architecture(cell, shape), dof_of(cell, shape), cell.seed)


def check_epochs(recipe: Recipe, cell: Cell) -> None:
    """Raise LinconError for a training that is too short for its scheme."""
    if recipe.epochs < (least := _scheme(cell).min_epochs):
        raise LinconError(
            f"{cell.scheme} trains {least} times over: give {least} epochs or more, not {recipe.epochs}."
        )


def _scheme(cell: Cell) -> Scheme:
    return find_task(cell.task).schemes[cell.scheme]


def _architecture(cell: Cell, shape: Sequence[int]) -> Architecture:
    """Makes the cell's model for the data, before any scheme; takes options by name alone."""
    return partial(find_task(cell.task).architecture(cell.model), *shape)


def dof_of(cell: Cell, shape: Sequence[int]) -> int:
    """The asked DoF as a number; that of a fraction of 1.0 where the scheme takes none."""
    model = blueprint(_architecture(cell, shape))
    most = count_parameters(model, body_weights(model))
    dof = count(1.0 if cell.dof is None else cell.dof, find_task(cell.task).full_dof(model))
    if dof > most:
        raise LinconError(f"dof={dof} exceeds the {most} weights of the body of {cell.model}.")
    return dof


def train(
    recipe: Recipe,
    cell: Cell,
    folder: Path,
    *,
    root: Path | None = None,
    callbacks: Sequence[Callback] = (),
    options: Mapping[str, Any] | None = None,
    logs: Sequence[str] = (),
    resume: bool = False,
) -> tuple[nn.Module, Run]:
    """Train one cell, and save the model into ``folder``; the trained model and what the training came to.

    Initialisation, order of the items and augmentation depend on the seed alone, not on the scheme. After every epoch
    a checkpoint is left in ``folder``; with ``resume`` the training goes on from there, to the same weights bit for
    bit (on a CPU) as without the interruption. ``options`` go to Lightning's Trainer; ``logs`` are names in `LOGS`.

    Raises:
        LinconError: nothing to resume from, or a training of another recipe; a cell that cannot be built.
    """
    check_epochs(recipe, cell)
    data, scheme, history = open_data(recipe, cell.seed, root), _scheme(cell), History()
    learner = find_task(cell.task).learner
    model, dof = build(cell, data.shape), dof_of(cell, data.shape)
    described = {**describe(recipe, options or {}), **asdict(cell), "shape": list(data.shape)}
    places = _prepared(folder, described, len(scheme.phases), resume)
    first = 0
    for phase, epochs, place, later in zip(
        scheme.phases, scheme.epochs(recipe.epochs), places, [*places[1:], None], strict=True
    ):
        if phase.begin is not None:
            gc.collect()
            phase.begin(model, dof, data)
        module = learner(model, data, recipe, phase, cell.seed, first)
        there = place if resume and place.exists() else None
        if there is not None and later is not None and later.exists():
            _restore(module, history, there)
        elif epochs:
            data.first_epoch = first
            loggers = [_logger(log, folder, place.stem) for log in logs]
            given = {"logger": loggers or False, **(options or {})}
            if there is not None:
                checkpoints.read(there)  # a damaged one is named here, before Lightning reads it
            fit(
                module,
                data,
                epochs,
                [history, *callbacks, checkpoints.after_every_epoch(place)],
                there,
                given,
            )
        first += epochs
    if not scheme.epochs(recipe.epochs)[
        -1
    ]:  # what the last phases did to the model came after the last measurement
        history.measured_again(evaluate(learner(model, data, recipe), data))
    size = lincon.save(model, folder / SAVED) if is_first() else 0
    run = Run(
        cell.model,
        cell.scheme,
        cell.dof,
        cell.seed,
        scheme.dof(model),
        count_parameters(model),
        size,
        history.epoch_seconds,
        history.train_loss,
        history.test,
        evaluate(learner(model, data, recipe), data, train=True),
        data.note,
    )
    write_output(folder / RECORD, json.dumps(described, indent=1))
    if is_first():
        for place in places:
            place.unlink(missing_ok=True)
    return model, run


def trainer_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked arguments of Lightning's Trainer.

    Raises LinconError for one that there is not, and for those that the recipe sets.
    """
    known = [name for name in inspect.signature(Trainer).parameters if name not in OURS]
    for name in given:
        if name in OURS:
            raise LinconError(
                f"trainer.{name} is set by lincon itself: see --epochs, --images, --log and --out."
            )
        choose("flag of the Trainer", name, dict.fromkeys(known))
        if given[name] == "":
            raise LinconError(f"--trainer.{name} has no value.")
        if name == "limit_train_batches" and given[name] == 0:
            raise LinconError("limit_train_batches=0 trains nothing.")
        if name == "precision" and str(given[name]).endswith("-true"):
            raise LinconError(
                f"precision={given[name]}: images are float32; give a mixed precision, as bf16-mixed."
            )
    return dict(given)


def load(cell: Cell, shape: Sequence[int], file: Path) -> nn.Module:
    """A trained model from its file."""
    scheme = _scheme(cell)
    model = scheme.bare(_architecture(cell, shape), dof_of(cell, shape), cell.seed)
    if scheme.shape is not None:
        scheme.shape(model, file)
    lincon.load(model, file)
    return model


def reload(folder: Path) -> tuple[nn.Module, Cell, Recipe, list[int]]:
    """The trained model in the folder of a training, its cell and recipe, and the shape of its data.

    Raises LinconError if the folder holds no finished training.
    """
    record, file = folder / RECORD, folder / SAVED
    if not record.exists() or not file.exists():
        raise LinconError(
            f"{folder} holds no trained model: give the --out of lincon train, or a folder of its runs/."
        )
    there = _read(record)
    if there.get(UNFINISHED):
        raise LinconError(
            f"{folder} holds a training that was cut: go on with lincon train --resume, or train anew."
        )
    try:
        cell = Cell(**{key: there[key] for key in _fields(Cell)})
        recipe, shape = (
            Recipe(**{key: there[key] for key in _fields(Recipe)}),
            [int(n) for n in there["shape"]],
        )
    except (KeyError, TypeError):
        raise LinconError(
            f"{record} was not written by this version of lincon: train anew."
        ) from None
    return load(cell, shape, file), cell, recipe, shape


def _fields(of: Any) -> list[str]:
    return [field.name for field in fields(of)]


def _logger(log: str, folder: Path, phase: str) -> Logger:
    """One that adds to what was logged before an interruption, in a folder of its own."""
    before = len(list(folder.glob(f"logs/{log}-{phase}*")))
    return choose("log", log, LOGS)(
        folder, "logs", f"{log}-{phase}" + (f"-{before}" if before else "")
    )


def _prepared(folder: Path, here: dict[str, Any], phases: int, resume: bool) -> list[Path]:
    """Places of the checkpoints of each phase; those of another training are refused, or deleted for a new one."""
    places = [folder / f"phase-{number}.ckpt" for number in range(phases)]
    if is_first():
        remove_partial(folder)
    record = folder / RECORD
    if resume:
        if not any(place.exists() for place in places) or not record.exists():
            if (folder / SAVED).exists():
                raise LinconError(
                    f"The training in {folder} has ended: there is nothing to resume."
                )
            raise LinconError(
                f"{folder} holds no checkpoint to resume from; train without --resume first."
            )
        if differing := differences(
            {k: v for k, v in _read(record).items() if k != UNFINISHED}, here
        ):
            raise LinconError(
                f"{folder} holds another training ({', '.join(differing)}): give the options it began with."
            )
        return places
    if is_first():
        for stale in folder.glob("phase-*.ckpt"):
            stale.unlink()
    write_output(record, json.dumps({**here, UNFINISHED: True}, indent=1))
    return places


def _read(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text()))
    except ValueError:
        raise LinconError(f"{record} is damaged: delete its folder, and train anew.") from None


def interrupted(folder: Path) -> bool:
    """Whether a training left checkpoints there and did not end."""
    return (folder / RECORD).exists() and any(folder.glob("phase-*.ckpt"))


def _restore(module: Learner, history: History, place: Path) -> None:
    """The end of a phase that was finished before."""
    kept = checkpoints.read(place)
    module.load_state_dict(kept["state_dict"])
    history.load_state_dict(kept["callbacks"][history.state_key])


def fit(
    module: Learner,
    data: Data,
    epochs: int,
    callbacks: Sequence[Callback],
    ckpt: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Train for so many epochs, quietly; from a checkpoint where there is one."""
    defaults: dict[str, Any] = {
        **devices_by_torchrun(),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "plugins": [checkpoints.WholeFiles()],
    }
    with _quiet():
        trainer = _trainer(
            {
                **defaults,
                **(options or {"logger": False, "enable_checkpointing": False}),
                "max_epochs": epochs,
                "callbacks": list(callbacks),
                "reload_dataloaders_every_n_epochs": 1,
            }
        )
        try:
            trainer.fit(
                module, datamodule=data, ckpt_path=ckpt, weights_only=True if ckpt else None
            )
            module.gather()
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
        except RuntimeError as error:
            if is_first():
                raise
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise LinconError(
                f"Process {trainer.global_rank}, or one that trains with it, failed: {said}"
            ) from error
        finally:
            module.trainer = data.trainer = (
                None  # and so its optimiser, of which a later phase would be warned
            )


def _trainer(arguments: dict[str, Any]) -> Trainer:
    if arguments.get("strategy") == "fsdp":
        arguments = {**arguments, "strategy": Sharded()}
    try:
        return Trainer(**arguments)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise LinconError(f"Lightning's Trainer refuses its flags: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices, workers, processes and loggers."""
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
