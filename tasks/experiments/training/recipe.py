"""What the trainings of an experiment have in common, and what tells them apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import product
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
        data: name of a data set of the task, also with options ("figures:size=96"); the task's
            first by default.
        epochs: passes over the training images, all phases together.
        batch: images a step.
        images: training images used, a fixed subset of all classes; None for all. The test set is
            always whole.
        optimiser: "sgd" (Nesterov momentum 0.9), "heavy-ball" (plain momentum 0.9), "adam" (AdamW)
            or "rmsprop".
        learning_rate: at the top of its schedule.
        schedule: "cycle" (up and down once), "cosine", "steps" (a fifth at 30, 60 and 80 % of the
            epochs), "thirds" (a tenth after each third), "tenths" (a tenth at 60 and 90 %), or
            "exponential" (evenly, to a hundredth).
        weight_decay: on every parameter, the free vector included.
        held_out: training items that stand in for the test set, and are not trained on; 0 for the
            test set itself. For choices, which must not see the test set.

    Raises:
        LinconError: an unknown name, or a number that is too small or not finite.
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
    held_out: int = 0

    def __post_init__(self) -> None:
        task = find_task(self.task)
        if not self.data:
            object.__setattr__(self, "data", next(iter(task.data)))
        task.data_set(self.data)
        choose("optimiser", self.optimiser, dict.fromkeys(OPTIMISERS))
        choose("schedule", self.schedule, dict.fromkeys(SCHEDULES))
        for name in ("epochs", "batch", "images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LinconError(f"{name} is {value}; at least 1 is needed.")
        if self.held_out < 0:
            raise LinconError(f"held_out is {self.held_out}; give 0 or more.")
        if not 0 < self.learning_rate < inf or not 0 <= self.weight_decay < inf:
            raise LinconError(
                f"learning rate {self.learning_rate} must be above 0, "
                f"weight decay {self.weight_decay} not below."
            )


@dataclass(frozen=True)
class Setup:
    """Where and with which tools a training runs, beside its recipe.

    Args:
        root: folder of the data set, for one that is not embedded.
        trainer: options of Lightning's Trainer.
        logs: kinds of logs to write beside the model, names in `trainer.LOGS`.
        quiet: without a progress bar.
    """

    root: Path | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    logs: Sequence[str] = ()
    quiet: bool = False


@dataclass(frozen=True)
class Cell:
    """One training of an experiment: a scheme on a model, with so many DoF and a seed.

    Args:
        model: name of the model, also with options.
        scheme: name of the scheme or of a generator, also with options.
        dof: free numbers in the body. An int is a count; a float is a fraction of the task's
            `full_dof`, which for most tasks is all of the body's weights. It becomes None for a
            scheme that takes none.
        seed: of initialisation, G and the order of the items.
        task: name in `TASKS`.

    Raises:
        LinconError: an unknown name, or a seed that is out of range.
    """

    model: str
    scheme: str
    dof: int | float | None
    seed: int
    task: str = "classification"

    def __post_init__(self) -> None:
        task = find_task(self.task)
        task.architecture(self.model)
        if not task.scheme(self.scheme).takes_dof:
            object.__setattr__(self, "dof", None)
        if not 0 <= self.seed < 1 << 32:
            raise LinconError(f"seed={self.seed}; give one from 0 to {(1 << 32) - 1}.")

    @property
    def name(self) -> str:
        """A name for files."""
        return cell_name(self.model, self.scheme, self.dof, self.seed)


def cell_name(model: str, scheme: str, dof: int | float | None, seed: int) -> str:
    """The name of a `Cell`, which need not be one that can be trained today.

    >>> cell_name("vit-micro:patch=2", "rpg", 0.1, 0)
    'vit-micro-patch-2-rpg-0.1-0'
    """
    share = "" if dof is None else f"-{dof}"
    name = f"{model}-{scheme}{share}-{seed}"
    return "".join(c if c.isalnum() or c in "._" else "-" for c in name)


def open_data(recipe: Recipe, seed: int, root: Path | None = None) -> Any:
    """The recipe's data set.

    Args:
        recipe: names the data set, the batch and the number of training images.
        seed: of the order of the training items.
        root: folder of the data set, for one that is not embedded.

    Raises:
        LinconError: missing or damaged files, or fewer images than the recipe asks for.
    """
    make = find_task(recipe.task).data_set(recipe.data)
    if not recipe.held_out:
        return make(seed, recipe.batch, root, recipe.images)
    data = make(seed, recipe.batch, root, None)
    data.hold_out(recipe.held_out, recipe.images)
    return data


def describe(recipe: Recipe, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as plain JSON, with the options of the Trainer, if there are any.

    Items that are held out are named where there are any.
    """
    description = asdict(recipe)
    if not recipe.held_out:
        del description["held_out"]
    if trainer:
        description["trainer"] = dict(trainer)
    return description


def recipe_of(record: Mapping[str, Any]) -> Recipe:
    """The recipe in what `describe` made, among other entries. Raises KeyError if it is not whole.

    >>> recipe_of(describe(Recipe(epochs=3), {})).epochs
    3
    """
    names = [field.name for field in fields(Recipe)]
    return Recipe(**{name: record[name] for name in names if name != "held_out" or name in record})


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In words, where two descriptions, as plain JSON, differ.

    >>> differences({"epochs": 1, "batch": 64}, {"epochs": 2, "batch": 64})
    ['epochs is 1 there and 2 here']
    """
    texts = []
    for name in dict.fromkeys([*here, *there]):
        old, new = json.dumps(there.get(name)), json.dumps(here.get(name))
        if old != new:
            texts.append(f"{name} is {old} there and {new} here")
    return texts


def cells(
    models: Sequence[str],
    schemes: Sequence[str],
    dofs: Sequence[int | float],
    seeds: range,
    task: str = "classification",
) -> list[Cell]:
    """Every combination once.

    Seeds change last, so that an interrupted experiment has whole rounds.

    Raises:
        LinconError: there is no combination, or one that is no `Cell`.
    """
    combinations = product(seeds, models, dofs, schemes)
    every = [Cell(model, scheme, dof, seed, task) for seed, model, dof, scheme in combinations]
    if not every:
        raise LinconError("Nothing to train: give at least one model, one scheme and one dof.")
    # Schemes that take no dof come once for each dof. Names, unlike cells, tell a dof of 1 from
    # one of 1.0.
    return list({cell.name: cell for cell in every}.values())
