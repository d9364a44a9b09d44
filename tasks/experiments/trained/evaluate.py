"""A trained model, measured again from its folder."""

from pathlib import Path

from lincon import LinconError
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training import learner
from lincon.tasks.experiments.training.training import open_data, reload


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
