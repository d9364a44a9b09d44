"""The folder of a training: its record and its model.

Until the training has ended there are also checkpoints, one for each phase.
"""

import json
import os
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from lincon import LinconError
from lincon.errors import LinconWarning
from lincon.files.atomic import remove_partial
from lincon.tasks.experiments.files import RECORD as RECORD
from lincon.tasks.experiments.files import SAVED as SAVED
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training.fingerprints import TEST_ITEMS, changed_code
from lincon.tasks.experiments.training.models import load
from lincon.tasks.experiments.training.ranks import is_first
from lincon.tasks.experiments.training.recipe import (
    Cell,
    Recipe,
    describe,
    differences,
    open_data,
    recipe_of,
)

UNFINISHED = "unfinished"
"""A key in the record of a training that has not ended; a model beside it is an earlier one's."""

DATA_SET = "data_set"
"""A key in the record: what predictions must know of the data; fingerprints tell data apart."""

_CHECKPOINTS = "phase-*.ckpt"


def checkpoint_paths(folder: Path, phases: int) -> list[Path]:
    """The path of each phase's checkpoint."""
    return [folder / _CHECKPOINTS.replace("*", str(number)) for number in range(phases)]


def begin(folder: Path, description: dict[str, Any]) -> None:
    """Make a folder ready for a new training.

    Old checkpoints are deleted, and the record says that the training has not ended.

    Args:
        folder: of the training.
        description: of the training, as plain JSON.

    Raises:
        LinconError: as `check_free` does.
    """
    check_free(folder)
    if is_first():
        remove_partial(folder)
        for stale in folder.glob(_CHECKPOINTS):
            stale.unlink()
    _write(folder, {**description, UNFINISHED: True})


def check_free(folder: Path) -> None:
    """Raise LinconError if files that a training writes are in ``folder``, and none wrote them.

    The record of a training tells its folder from others; what it is about to replace is then an
    earlier training's.
    """
    names = [path.name for path in sorted(folder.glob(_CHECKPOINTS))]
    names += [name for name in (SAVED, RECORD) if os.path.lexists(folder / name)]
    if names and not _has_record(folder):
        raise LinconError(
            f"{folder} holds {', '.join(names)}, but no training of lincon: "
            "give another --out, or move the files away."
        )


def check_no_training(folder: Path) -> None:
    """Raise LinconError if a training lies in a folder that an experiment would write into."""
    if (folder / RECORD).exists() and _has_record(folder):
        raise LinconError(
            f"{folder} holds a training (it has {RECORD}): give an experiment another --out."
        )


def _has_record(folder: Path) -> bool:
    if not (folder / RECORD).is_file() or (folder / RECORD).is_symlink():
        return False
    try:
        record = _read(folder)
    except LinconError:
        return False
    return all(
        name in record for name in [*[each.name for each in fields(Cell)], *describe(Recipe(), {})]
    )


def check_resumable(folder: Path, description: dict[str, Any]) -> None:
    """Raise LinconError unless ``folder`` holds an interrupted training of this description."""
    if is_first():
        remove_partial(folder)
    if not interrupted(folder):
        if (folder / SAVED).exists():
            raise LinconError(f"The training in {folder} has ended: there is nothing to resume.")
        raise LinconError(
            f"{folder} holds no checkpoint to resume from; train without --resume first."
        )
    record = _read(folder)
    for name in (UNFINISHED, DATA_SET):
        record.pop(name, None)
    if differing := differences(record, {**description, DATA_SET: None}):
        raise LinconError(
            f"{folder} holds another training ({', '.join(differing)}): "
            "give the options it began with."
        )


def finish(folder: Path, description: dict[str, Any]) -> None:
    """Write the record of a training that has ended, and delete its checkpoints."""
    _write(folder, description)
    if is_first():
        for checkpoint in folder.glob(_CHECKPOINTS):
            checkpoint.unlink(missing_ok=True)


def interrupted(folder: Path) -> bool:
    """Whether a training left checkpoints in ``folder`` and did not end."""
    return (folder / RECORD).exists() and any(folder.glob(_CHECKPOINTS))


def reload(folder: Path) -> tuple[nn.Module, Cell, Recipe, list[int]]:
    """The trained model in the folder of a training, its cell, its recipe and its data's shape.

    Raises:
        LinconError: the folder holds no finished training.
    """
    if not (folder / RECORD).exists() or not (folder / SAVED).exists():
        raise LinconError(
            f"{folder} holds no trained model: "
            "give the --out of lincon train, or a folder of its runs/."
        )
    record = _read(folder)
    if record.get(UNFINISHED):
        raise LinconError(
            f"{folder} holds a training that was cut: "
            "go on with lincon train --resume, or train again."
        )
    try:
        cell = Cell(**{field.name: record[field.name] for field in fields(Cell)})
        recipe = recipe_of(record)
        shape = [int(size) for size in record["shape"]]
    except (KeyError, TypeError):
        raise LinconError(
            f"{folder / RECORD} was not written by this version of lincon: train again."
        ) from None
    _warn_of_changes(folder, cell, record)
    return load(cell, shape, folder / SAVED), cell, recipe, shape


def _warn_of_changes(folder: Path, cell: Cell, record: dict[str, Any]) -> None:
    """Warn if the user's code that makes the model is not what it was in the training."""
    if changed := changed_code(record, find_task(cell.task).architecture(cell.model)):
        warnings.warn(
            f"The source of {', '.join(changed)} has changed since the training in {folder}: "
            "the numbers may be of another model.",
            LinconWarning,
            stacklevel=3,
        )


def reopen(folder: Path, recipe: Recipe, cell: Cell, root: Path | None) -> Any:
    """The data set of the training in ``folder``, with a warning if it is not what it was."""
    data = open_data(recipe, cell.seed, root)
    there, here = _read(folder).get(TEST_ITEMS), data.test_set.fingerprint()
    if there not in (None, here):
        warnings.warn(
            f"The test items of {recipe.data} are not those of the training in {folder}: "
            "the numbers do not compare.",
            LinconWarning,
            stacklevel=3,
        )
    return data


def data_set_of(folder: Path) -> dict[str, Any]:
    """What a training noted of its data set, see `Data.described`."""
    try:
        return dict(_read(folder)[DATA_SET])
    except KeyError:
        raise LinconError(
            f"{folder / RECORD} was not written by this version of lincon: train again."
        ) from None


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_output(folder / RECORD, json.dumps(record, indent=1))


def _read(folder: Path) -> dict[str, Any]:
    record = folder / RECORD
    try:
        return dict(json.loads(record.read_text()))
    except (ValueError, TypeError):
        raise LinconError(f"{record} is damaged: delete its folder, and train again.") from None
