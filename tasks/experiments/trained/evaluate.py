"""A trained model, measured again from its folder."""

from pathlib import Path

from torch import nn

from lincon import LinconError
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training import learner
from lincon.tasks.experiments.training.recipe import Recipe, open_data
from lincon.tasks.experiments.training.record import reload


def evaluate(
    folder: Path, root: Path | None = None, *, flip: bool = False
) -> tuple[str, dict[str, float]]:
    """The task of the model in the folder of a training, and every measure of it on the whole test set.

    ``flip``: see the mean of an image and its mirror image (the flip test). Raises LinconError for a folder without a
    trained model, and for a task that has no flip test.
    """
    model, cell, recipe, _ = reload(folder)
    data = open_data(recipe, cell.seed, root)
    measuring = find_task(cell.task).learner(model, data, recipe)
    if flip and not measuring.can_flip:
        raise LinconError(
            f"{folder} holds a model of {cell.task}, which has no flip test: leave --flip out."
        )
    measuring.flip = flip
    return cell.task, learner.evaluate(measuring, data)


def measure(model: nn.Module, recipe: Recipe, data: Data) -> dict[str, float]:
    """Every measure of a model on the whole test set."""
    return learner.evaluate(find_task(recipe.task).learner(model, data, recipe), data)
