"""What all trainings of an experiment have in common, and what tells them apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from lincon import LinconError
from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.task import find_task

OPTIMISERS = "sgd", "heavy-ball", "adam", "rmsprop"
MILESTONES = {
    "steps": ((0.3, 0.6, 0.8), 0.2),
    "thirds": ((1 / 3, 2 / 3), 0.1),
    "tenths": ((0.6, 0.9), 0.1),
}
"""Schedules that go down in steps: at which shares of the training, and by which factor."""
SCHEDULES = "cycle", "cosine", "exponential", *MILESTONES


@dataclass(frozen=True)
class Recipe:
    """How every model of an experiment is trained.

    Args:
        task: name in `TASKS`.
        data: name of a data set of the task, which may have options ("figures:size=96"); the task's own by default.
        epochs: passes over the training images, all phases together.
        batch: images a step.
        images: training images used (a fixed subset of all classes); None for all. The test set is always whole.
        optimiser: "sgd" (Nesterov momentum 0.9), "heavy-ball" (plain momentum 0.9), "adam" (AdamW) or "rmsprop".
        learning_rate: at the top of its schedule.
        schedule: "cycle" (up and down once), "cosine", "steps" (a fifth at 30, 60 and 80 % of the epochs), "thirds" (a
            tenth after each third), "tenths" (a tenth at 60 and 90 %), or "exponential" (evenly, to a hundredth).
        weight_decay: on every parameter, the free vector included.

    Raises:
        LinconError: an unknown name, or a number below its least.
    """

    task: str = "classification"
    data: str = ""
    epochs: int = 20
    batch: int = 64
    images: int | None = None
    optimiser: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "cycle"
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        if not self.data:
            object.__setattr__(self, "data", next(iter(find_task(self.task).data)))
        find_task(self.task).data_set(self.data)
        choose("optimiser", self.optimiser, dict.fromkeys(OPTIMISERS))
        choose("schedule", self.schedule, dict.fromkeys(SCHEDULES))
        for name in ("epochs", "batch", "images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise LinconError(f"{name} is {value}; at least 1 is needed.")
        if not 0 < self.learning_rate < inf or not 0 <= self.weight_decay < inf:
            raise LinconError(
                f"learning rate {self.learning_rate} must be above 0, weight decay {self.weight_decay} not below."
            )


@dataclass(frozen=True)
class Setup:
    """Where and with which tools a training runs, beside its recipe.

    Args:
        root: folder of the data set, for those that are not embedded.
        trainer: options of Lightning's Trainer.
        logs: kinds of logs to write beside the model, names in `trainer.LOGS`.
    """

    root: Path | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    logs: Sequence[str] = ()


@dataclass(frozen=True)
class Cell:
    """One training: a scheme on a model, with so many DoF and a seed.

    ``dof``: free numbers in the body, an int, or a float: a fraction of what the task calls whole, for most the
    body's weights; None where the scheme takes none.
    """

    model: str
    scheme: str
    dof: int | float | None
    seed: int
    task: str = "classification"

    def __post_init__(self) -> None:
        find_task(self.task).architecture(self.model)
        if not choose("scheme", self.scheme, find_task(self.task).schemes).takes_dof:
            object.__setattr__(self, "dof", None)
        if not 0 <= self.seed < 1 << 32:
            raise LinconError(f"seed={self.seed}; give one from 0 to {(1 << 32) - 1}.")

    @property
    def name(self) -> str:
        """A name for files."""
        parts = [
            self.model,
            self.scheme,
            *([] if self.dof is None else [str(self.dof)]),
            str(self.seed),
        ]
        return "-".join(
            "".join(c if c.isalnum() or c in "._" else "-" for c in part) for part in parts
        )


def open_data(recipe: Recipe, seed: int, root: Path | None = None) -> Any:
    """The recipe's data set; ``seed`` is of the order of its items, ``root`` the folder where it lies."""
    make = find_task(recipe.task).data_set(recipe.data)
    return make(seed, recipe.batch, root, recipe.images)


def describe(recipe: Recipe, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as plain JSON, with the options given to the Trainer."""
    return {**asdict(recipe), **({"trainer": dict(trainer)} if trainer else {})}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What two recipes or cells, as plain JSON, do not have in common, in words."""
    both = {
        key: (json.dumps(there.get(key)), json.dumps(here.get(key)))
        for key in dict.fromkeys([*here, *there])
    }
    return [
        f"{key} is {old} there and {new} here" for key, (old, new) in both.items() if old != new
    ]


def cells(
    models: list[str],
    schemes: list[str],
    dofs: list[int | float],
    seeds: range,
    task: str = "classification",
) -> list[Cell]:
    """Every combination once, seeds outermost, so that an interrupted experiment has whole rounds."""
    every = [
        Cell(m, s, d, seed, task) for seed in seeds for m in models for d in dofs for s in schemes
    ]
    if not every:
        raise LinconError("Nothing to train: give at least one model, one scheme and one dof.")
    return list(
        {cell.name: cell for cell in every}.values()
    )  # by name: a dof of 1 is not one of 1.0
