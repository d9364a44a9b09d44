"""A trained model for the user's own pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from torch import nn

from lincon import LinconError
from lincon.tasks.experiments.training.record import reload

Model = TypeVar("Model", bound=nn.Module)


def load_trained(
    folder: Path, kind: type[Model], task: str, images: Sequence[Path]
) -> tuple[Model, int]:
    """Load the model that a training left in ``folder``.

    Args:
        folder: of a training.
        kind: class of the models of the task.
        task: name of the task, for messages.
        images: pictures whose results will be written under their names.

    Returns:
        The model, switched to evaluation, and the size in pixels of the pictures that it sees.

    Raises:
        LinconError: a folder without a trained model of ``kind``, or two images of one name.
    """
    model, cell, _, (size, *_) = reload(folder)
    if not isinstance(model, kind):
        raise LinconError(f"{folder} holds a model of {cell.task}, not of {task}.")
    if len({path.stem for path in images}) < len(images):
        raise LinconError(
            "Two of the pictures have one name, under which the results are written: "
            "call once for each."
        )
    return model.eval(), size
