"""A trained model for the user's own pictures."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from torch import nn

from lincon import LinconError
from lincon.tasks.experiments.output import check_replaceable, mark_of
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


def mark(task: str, picture: Path) -> str:
    """The mark of what is written for a picture, which no other picture's output has."""
    digest = sha256(picture.read_bytes()).hexdigest()
    return mark_of(f"predict {task} from the picture with SHA-256 {digest}")


def check_outputs(task: str, files: Mapping[Path, Sequence[Path]]) -> None:
    """Raise LinconError if writing would replace anything but an earlier output of the same picture.

    Args:
        task: name of the task.
        files: what will be written, by picture.
    """
    for picture, outputs in files.items():
        own_mark = mark(task, picture)
        for output in outputs:
            if output.exists() and any(output.samefile(each) for each in files):
                raise LinconError(
                    f"{output} would be written over, and is one of the pictures: "
                    "give another --out."
                )
            check_replaceable(output, own_mark)
