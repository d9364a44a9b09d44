"""The tensors of a model that training changes: what the file of an adapter holds."""

import warnings

from torch import nn

from lincon.attaching.constraint import Constraint, constraints, prefixes
from lincon.errors import LinconWarning


def trained_names(model: nn.Module) -> set[str]:
    """Names in the state_dict of free vectors and their steps, and of what requires a gradient.

    The buffers of a module whose own parameters are trained, such as the running statistics of a
    norm, change with them. Warns of those that change in modules that are frozen.
    """
    free = {name for constraint in constraints(model) for name in _free_names(model, constraint)}
    names, moving = set(free), []
    for prefix, module in model.named_modules(remove_duplicate=False):
        start = f"{prefix}." if prefix else ""
        own = dict(module.named_parameters(start.rstrip("."), recurse=False))
        trained = {name for name, parameter in own.items() if parameter.requires_grad}
        buffers = {start + name for name, _ in module.named_buffers(recurse=False)}
        names |= trained
        if trained - free:
            names |= buffers
        elif module.training and f"{start}running_mean" in buffers:
            moving.append(prefix)
    if moving:
        _warn_of_moving(moving)
    return names


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
