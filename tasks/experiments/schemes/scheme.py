"""What a scheme of sharing is: how a model is made whose body has so many free numbers, and how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import lincon
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


@dataclass(frozen=True)
class Phase:
    """A part of a training, with an optimiser and a learning-rate cycle of its own.

    ``share`` of the epochs; ``begin(model, dof, data)`` is called before it; ``penalty(model)`` is added to the loss.
    """

    share: float = 1.0
    begin: Begin | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None


def vanilla(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The unconstrained model, whatever the dof."""
    return architecture()


def degrees_of_freedom(model: nn.Module) -> int:
    """Free numbers in the body: the free vectors of a constrained model, all body weights of another."""
    constraints = lincon.constraints(model)
    return (
        sum(c.dof for c in constraints)
        if constraints
        else count_parameters(model, body_weights(model))
    )


@dataclass(frozen=True)
class Scheme:
    """How a model is made, how its training is divided, and how its DoF are counted.

    ``takes_dof``: whether the asked DoF changes anything. ``bare``: makes the module that a file of it is loaded into;
    ``shape``: gives that the shapes of the file, where training changes them. ``min_epochs``: with fewer, what it
    trains would mean nothing.
    """

    make: Make
    phases: tuple[Phase, ...] = (Phase(),)
    dof: Callable[[nn.Module], int] = degrees_of_freedom
    takes_dof: bool = True
    bare: Make = vanilla
    shape: Callable[[nn.Module, Path], None] | None = None
    min_epochs: int = 1

    def epochs(self, total: int) -> list[int]:
        """How many epochs each phase gets; a phase may get none of a short training."""
        ends = [0.0]
        for phase in self.phases:
            ends.append(ends[-1] + phase.share)
        return [
            after - before
            for before, after in pairwise(round(total * end / ends[-1]) for end in ends)
        ]


def small(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The dense network of the same family that has about as many parameters in all as a constrained one."""
    model = architecture()
    total = count_parameters(model) - count_parameters(model, body_weights(model)) + dof
    return architecture(width=nearest_width(architecture, total))


def constrained(generator: str, scope: str = "model", **options: Any) -> Scheme:
    """The scheme that constrains the body by a registered generator; arguments as of `lincon.constrain`."""

    def make(architecture: Architecture, dof: int, seed: int) -> nn.Module:
        model = architecture()
        names = body_weights(model)
        lincon.constrain(model, generator, dof=dof, seed=seed, where=names, scope=scope, **options)
        return model

    return Scheme(make)
