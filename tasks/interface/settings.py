"""How the trainings of an experiment are made, as its caller says it: `Settings`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from lincon.tasks.experiments.files import check_folder
from lincon.tasks.experiments.names import choose
from lincon.tasks.experiments.sweeps.grid import Grid
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training.recipe import Recipe, Setup
from lincon.tasks.experiments.training.trainer import LOGS, trainer_options


@dataclass(frozen=True)
class Settings:
    """What every experiment takes. None stands for what the preset says, or the task.

    Args:
        task: "classification", "pose", "indoor" or "language".
        out: folder of the results and of the finished runs, from which another call continues;
            None: a temporary one that goes.
        preset: a recipe of the task by name; the next eight change it.
        epochs: passes over the training items.
        batch: items a step.
        images: training items used.
        optimiser: "sgd", "heavy-ball", "adam" or "rmsprop".
        learning_rate: at the top of its schedule.
        schedule: "cycle", "cosine", "steps", "thirds", "tenths" or "exponential".
        weight_decay: on every parameter, the free vector included.
        held_out: training items that stand in for the test set, and are not trained on.
        tune: what is tried first for every scheme and DoF alike, on items that it holds out.
        root: folder of the data set, for one that is not embedded.
        trainer: flags of Lightning's Trainer.
        log: "csv" and "tensorboard", beside each run.
        parallel: trainings at a time, by Ray.
        threads: with which torch computes, in each training; few weights are fastest with one.
        quiet: no progress bar.
        dry_run: train nothing and write nothing; the result lists the trainings.
    """

    task: str = "classification"
    out: str | Path | None = None
    preset: str = "quick"
    epochs: int | None = None
    batch: int | None = None
    images: int | None = None
    optimiser: str | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    weight_decay: float | None = None
    held_out: int | None = None
    tune: Grid | None = None
    root: str | Path | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[str] = ()
    parallel: int = 1
    threads: int = 1
    quiet: bool = False
    dry_run: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Settings by name. Raises LinconError for an unknown name."""
        known = dict.fromkeys(each.name for each in fields(cls))
        for name in given:
            choose("setting", name, known)
        return cls(**given)

    def recipe(self, data: str) -> Recipe:
        """The preset, changed by what was given, on the data set called ``data``.

        Raises:
            LinconError: an unknown name, or a number that is out of range.
        """
        preset = choose("preset", self.preset, find_task(self.task).presets)
        names = [each.name for each in fields(Recipe) if each.name not in ("task", "data")]
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        named = {"data": data} if data else {}
        return Recipe(self.task, **{**preset, **changes, **named})

    def setup(self) -> Setup:
        """Where and with which tools the trainings run.

        Raises:
            LinconError: an unknown flag of the Trainer, or an unknown log.
        """
        for log in self.log:
            choose("log", log, LOGS)
        root = None if self.root is None else Path(self.root)
        return Setup(root, trainer_options(self.trainer), tuple(self.log), self.quiet)

    def folder(self) -> Path | None:
        """``out``. Raises LinconError if a file is in its place, or in that of a folder around it."""
        return None if self.out is None else check_folder(Path(self.out))
