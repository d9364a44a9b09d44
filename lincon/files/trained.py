"""The tensors of a model that training changes: what the file of an adapter holds."""

import warnings

from torch import nn

from lincon.attaching.constraint import Constraint, constraints
from lincon.attaching.state import prefixes
from lincon.errors import LinconWarning
from lincon.step.generated import generated_in


def trained_names(model: nn.Module) -> set[str]:
    """Names in the state_dict of free vectors and their steps, and of what requires a gradient.

    The buffers of a module whose own parameters are trained or generated, such as the running
    statistics of a norm, change with them. Warns of those that change in modules that are frozen.
    """
    free = {name for constraint in constraints(model) for name in _free_names(model, constraint)}
    names, moving = set(free), []
    for prefix, module in model.named_modules(remove_duplicate=False):
        trained, buffers = _own_names(prefix, module)
        names |= trained
        if trained - free or generated_in(module):
            names |= buffers
        elif module.training and f"{prefix}.running_mean".lstrip(".") in buffers:
            moving.append(prefix)
    if moving:
        _warn_of_moving(moving)
    return names


def _own_names(prefix: str, module: nn.Module) -> tuple[set[str], set[str]]:
    """All names of a module's own trained parameters, and of its buffers, not of its parts'."""
    own = module.named_parameters(prefix, recurse=False, remove_duplicate=False)
    trained = {name for name, parameter in own if parameter.requires_grad}
    buffers = module.named_buffers(prefix, recurse=False, remove_duplicate=False)
    return trained, {name for name, _ in buffers}


def _warn_of_moving(modules: list[str]) -> None:
    names = ", ".join(map(repr, modules[:8]))
    warnings.warn(
        f"{names}: in training mode, so that running statistics move, but not trained, so that the "
        "file holds only a checksum of them. It loads where they have moved alike. Keep frozen "
        "norms in eval mode: module.eval().",
        LinconWarning,
        stacklevel=3,
    )


def _free_names(model: nn.Module, constraint: Constraint) -> list[str]:
    own = [name for group in constraint.groups for name in (group.free, group.steps) if name]
    return [prefix + name for prefix in prefixes(model, constraint.owner) for name in own]
