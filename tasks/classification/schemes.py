"""Schemes of sharing, by name: how a model is made whose body has about ``dof`` free numbers.

To add one, add a line to `SCHEMES`.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

import lincon
from lincon.tasks.classification.models import Architecture, body_weights, count, nearest_width

Scheme = Callable[[Architecture, int, int], nn.Module]
"""(architecture, dof, seed of the generating matrix) -> model."""


def vanilla(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The unconstrained model, whatever the dof."""
    return architecture()


def small(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """The dense network of the same family that has about as many parameters in all as a constrained one."""
    model = architecture()
    total = count(model) - count(model, body_weights(model)) + dof
    return architecture(width=nearest_width(architecture, total))


def constrained(generator: str, scope: str = "model", **options: Any) -> Scheme:
    """The scheme that constrains the body by a registered generator; arguments as of `lincon.constrain`."""

    def scheme(architecture: Architecture, dof: int, seed: int) -> nn.Module:
        model = architecture()
        names = body_weights(model)
        lincon.constrain(model, generator, dof=dof, seed=seed, where=names, scope=scope, **options)
        return model

    return scheme


SCHEMES: dict[str, Scheme] = {
    "vanilla": vanilla,
    "ring": constrained("ring"),
    "hash": constrained("hash", scope="tensor"),  # HashedNets hash every layer by itself
    "random": constrained("random"),
    "sparse": constrained("sparse"),
    "dense": constrained("dense"),
    "small": small,
}
"""Schemes by name, in the order of a table."""


def degrees_of_freedom(model: nn.Module) -> int:
    """Free numbers in the body: the free vectors of a constrained model, all body weights of another."""
    constraints = lincon.constraints(model)
    return sum(c.dof for c in constraints) if constraints else count(model, body_weights(model))
