"""The model of a cell: built untrained, or loaded from its file."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning import seed_everything
from torch import nn

import lincon
from lincon import LinconError
from lincon.attaching.dof import as_count
from lincon.tasks.experiments.schemes.body import (
    Architecture,
    blueprint,
    body_weights,
    count_parameters,
)
from lincon.tasks.experiments.schemes.scheme import Scheme
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training.recipe import Cell, Recipe


def scheme_of(cell: Cell) -> Scheme:
    """The scheme of a cell."""
    return find_task(cell.task).scheme(cell.scheme)


def build(cell: Cell, shape: Sequence[int]) -> nn.Module:
    """The untrained model of a cell, for data of that shape.

    Equal seeds give equal initialisations and equal matrices G.

    Raises:
        LinconError: a dof that is not positive, a fraction above 1, or a dof that the scheme
            refuses.
    """
    seed_everything(cell.seed, verbose=False)
    return scheme_of(cell).make(_architecture(cell, shape), dof_of(cell, shape), cell.seed)


def load(cell: Cell, shape: Sequence[int], file: Path) -> nn.Module:
    """The trained model of a cell, from its file."""
    scheme = scheme_of(cell)
    model = scheme.bare(_architecture(cell, shape), dof_of(cell, shape), cell.seed)
    if scheme.shape is not None:
        scheme.shape(model, file)
    lincon.load(model, file)
    return model


def dof_of(cell: Cell, shape: Sequence[int]) -> int:
    """The DoF of a cell as a count; those of a fraction of 1.0 where the scheme takes none.

    Raises:
        LinconError: more DoF than the body has weights.
    """
    model = blueprint(_architecture(cell, shape))
    weights = count_parameters(model, body_weights(model))
    asked = 1.0 if cell.dof is None else cell.dof
    dof = as_count(asked, find_task(cell.task).full_dof(model))
    if dof > weights:
        raise LinconError(f"dof={dof} exceeds the {weights} weights of the body of {cell.model}.")
    return dof


def check_epochs(recipe: Recipe, cell: Cell) -> None:
    """Raise LinconError for a training that is too short for its scheme."""
    least = scheme_of(cell).min_epochs
    if recipe.epochs < least:
        raise LinconError(
            f"{cell.scheme} trains {least} times over: "
            f"give {least} epochs or more, not {recipe.epochs}."
        )


def _architecture(cell: Cell, shape: Sequence[int]) -> Architecture:
    """Makes the cell's model for the data, without its scheme; takes keyword arguments only."""
    return partial(find_task(cell.task).architecture(cell.model), *shape)
