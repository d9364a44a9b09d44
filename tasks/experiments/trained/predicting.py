"""A trained model, for pictures of one's own."""

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
    """The model that a training left in ``folder``, for evaluation, and the size of the pictures that it sees.

    Raises LinconError for a folder without a trained model of ``kind``, and for two images of one name, under which
    the results would be written.
    """
    model, cell, _, (size, *_) = reload(folder)
    if not isinstance(model, kind):
        raise LinconError(f"{folder} holds a model of {cell.task}, not of {task}.")
    if len({path.stem for path in images}) < len(images):
        raise LinconError(
            "Two of the pictures have one name, under which the results are written: call once for each."
        )
    return model.eval(), size
