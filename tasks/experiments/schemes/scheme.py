"""What a scheme of sharing is: how it makes a model with so many free numbers, and trains it."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import lincon
from lincon.shapes import Float
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.schemes.body import (
    Architecture,
    body_weights,
    count_parameters,
    nearest_width,
)

Make = Callable[[Architecture, int, int], nn.Module]
"""(architecture, dof, seed of the generating matrix) -> model."""

Begin = Callable[[nn.Module, int, Data], None]
"""(model, dof, data set): what is done to the model, in place."""

Penalty = Callable[[nn.Module], Float[Tensor, ""]]
"""model -> what is added to the loss."""


@dataclass(frozen=True)
class Phase:
    """A part of a training, with an optimiser and a learning-rate schedule of its own.

    Args:
        share: of the epochs, relative to the other phases.
        begin: called with (model, dof, data set) before the phase.
        penalty: called with the model in every step.
    """

    share: float = 1.0
    begin: Begin | None = None
    penalty: Penalty | None = None


def vanilla(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The unconstrained model, whatever the dof."""
    return architecture()


def degrees_of_freedom(model: nn.Module) -> int:
    """Free numbers in the body: those of the free vectors, or all weights of a plain model."""
    constraints = lincon.constraints(model)
    if not constraints:
        return count_parameters(model, body_weights(model))
    return sum(constraint.dof for constraint in constraints)


@dataclass(frozen=True)
class Scheme:
    """How a model is made, how its training is divided, and how its DoF are counted.

    Args:
        make: makes the model that is trained.
        phases: of the training.
        dof: counts the DoF of a trained model.
        takes_dof: whether the DoF that are asked for change anything.
        bare: makes the module that a file of the trained model is loaded into.
        shape: (module, file): gives the module the shapes in the file, where training changes them.
        min_epochs: with fewer, its results would mean nothing.
    """

    make: Make
    phases: tuple[Phase, ...] = (Phase(),)
    dof: Callable[[nn.Module], int] = degrees_of_freedom
    takes_dof: bool = True
    bare: Make = vanilla
    shape: Callable[[nn.Module, Path], None] | None = None
    min_epochs: int = 1

    def epochs(self, total: int) -> list[int]:
        """How many of ``total`` epochs each phase gets; in a short training a phase may get none.

        >>> Scheme(vanilla, (Phase(0.5), Phase(0.3), Phase(0.2))).epochs(5)
        [2, 2, 1]
        """
        ends = list(accumulate((phase.share for phase in self.phases), initial=0.0))
        rounded = [round(total * end / ends[-1]) for end in ends]
        return [after - before for before, after in pairwise(rounded)]


def small(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The dense network of the same family with about as many parameters as a constrained one."""
    model = architecture()
    unconstrained = count_parameters(model) - count_parameters(model, body_weights(model))
    return architecture(width=nearest_width(architecture, unconstrained + dof))


def constrained(generator: str, scope: str = "model", **options: Any) -> Scheme:
    """The scheme that constrains the body by a registered generator.

    Args:
        generator: name of the generator.
        scope: which tensors share a free vector, as in `lincon.constrain`.
        options: further ones of `lincon.constrain`.
    """

    def make(architecture: Architecture, dof: int, seed: int) -> nn.Module:
        model = architecture()
        names = body_weights(model)
        lincon.constrain(model, generator, dof=dof, seed=seed, where=names, scope=scope, **options)
        return model

    return Scheme(make)
