"""A trained model, changed and trained on, as pruning needs it.

It comes from the folder of one training and is left in another.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightning import Callback
from torch import nn

import lincon
from lincon import LinconError
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.schemes.body import body_weights
from lincon.tasks.experiments.schemes.scheme import Phase
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.trained.evaluate import measure
from lincon.tasks.experiments.training.ranks import exit_unless_first, is_first
from lincon.tasks.experiments.training.recipe import Cell, Recipe
from lincon.tasks.experiments.training.record import RECORD, SAVED, reload, reopen
from lincon.tasks.experiments.training.trainer import fit

TUNED = "tuned.json"
"""The measures before and after the change."""


@dataclass(frozen=True)
class Tuning:
    """How a changed model is trained on.

    Args:
        epochs: of further training, by the recipe of the first.
        learning_rate: at the top of the schedule; None for a tenth of the first training's.
        callbacks: of Lightning.
    """

    epochs: int = 0
    learning_rate: float | None = None
    callbacks: Sequence[Callback] = ()

    def recipe(self, first: Recipe) -> Recipe:
        """The recipe of the first training, changed for the further one."""
        rate = self.learning_rate or first.learning_rate / 10
        return replace(first, epochs=max(1, self.epochs), learning_rate=rate)


def tune(
    folder: Path,
    out: Path,
    change: Callable[[nn.Module], object],
    tuning: Tuning | None = None,
    root: Path | None = None,
) -> tuple[nn.Module, dict[str, float], dict[str, float]]:
    """Change the trained model in ``folder``, train it on, and leave it in ``out``.

    ``out`` is then like the folder of a training.

    Args:
        folder: of a training.
        out: another folder, for the changed model; it must not hold a training, nor `tuned.json`.
        change: changes the model in place. The body of an unconstrained model is constrained by
            `identity` before.
        tuning: how the model is trained on; not at all by default.
        root: folder of the data set, for one that is not embedded.

    Returns:
        The model, and every measure of it on the whole test set: before the change, and at the end.

    Raises:
        LinconError: a folder without a trained model; ``out`` is that folder, or holds a file that
            would be replaced.
    """
    if out.resolve() == folder.resolve():
        raise LinconError(f"--out is {out}, where the model comes from: give another folder.")
    _check_free(out)
    tuning = tuning or Tuning()
    model, cell, recipe, _ = reload(folder)
    data = reopen(folder, recipe, cell, root)
    further = tuning.recipe(recipe)  # a learning rate that is refused is refused at once
    before = measure(model, recipe, data)
    as_constrained(model)
    change(model)
    if tuning.epochs:
        _train_on(model, cell, data, further, recipe.epochs, tuning)
    after = measure(model, recipe, data)
    exit_unless_first()
    out.mkdir(parents=True, exist_ok=True)
    lincon.save(model, out / SAVED)
    write_output(out / RECORD, (folder / RECORD).read_text())
    summary = {"from": folder.name, "before": before, "after": after}
    write_output(out / TUNED, json.dumps(summary, indent=1))
    return model, before, after


def _check_free(out: Path) -> None:
    """Raise LinconError if a file is there that would be replaced.

    Only the first process checks: another may come so late that the first has written already.
    """
    for name in (SAVED, RECORD, TUNED):
        if is_first() and os.path.lexists(out / name):
            raise LinconError(f"{out} holds {name} already: give another --out, or delete it.")


def as_constrained(model: nn.Module) -> None:
    """Constrain the body of an unconstrained model by `identity`, to prune it as any other."""
    if not lincon.constraints(model):
        lincon.constrain(model, "identity", where=body_weights(model))


def _train_on(
    model: nn.Module, cell: Cell, data: Data, recipe: Recipe, trained: int, tuning: Tuning
) -> None:
    """Train a model that was ``trained`` for so many epochs before."""
    data.first_epoch = trained
    learner = find_task(cell.task).learner(model, data, recipe, Phase(), cell.seed, trained)
    fit(learner, data, tuning.epochs, tuning.callbacks)
