"""Trained models, measured again."""

from pathlib import Path
from typing import Any

from torch import nn

from lincon import LinconError
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training import learner
from lincon.tasks.experiments.training.recipe import Recipe
from lincon.tasks.experiments.training.record import reload, reopen


def evaluate(
    folder: Path, root: Path | None = None, *, flip: bool = False
) -> tuple[str, dict[str, float]]:
    """Measure the model that a training left in ``folder`` on the whole test set.

    Args:
        folder: of a training.
        root: folder of the data set, for one that is not embedded.
        flip: predict the mean over an image and its mirror image (the flip test).

    Returns:
        The name of the task, and the value of every measure by name.

    Raises:
        LinconError: a folder without a trained model, or a task that has no flip test.
    """
    model, cell, recipe, _ = reload(folder)
    data = reopen(folder, recipe, cell, root)
    measuring = find_task(cell.task).learner(model, data, recipe)
    if flip and not measuring.can_flip:
        raise LinconError(
            f"{folder} holds a model of {cell.task}, which has no flip test: leave --flip out."
        )
    measuring.flip = flip
    return cell.task, learner.evaluate(measuring, data)


def measure(model: nn.Module, recipe: Recipe, data: Any) -> dict[str, float]:
    """Every measure of a model on the whole test set, by name.

    ``data`` is the data set of the recipe.
    """
    return learner.evaluate(find_task(recipe.task).learner(model, data, recipe), data)
