"""Parts of a model that are used, trained or frozen without the module that owns their free vector.

A generated weight is no Parameter of its layer. So `nn.Sequential(*net.children())`, an optimiser of
`net.backbone.parameters()` and `backbone.requires_grad_(False)` all miss it. A step costs nothing: a
part is looked at when it first generates a weight on demand, an optimiser at its second step.
"""

import sys
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from lincon.attaching.free_vector import FreeVector
from lincon.attaching.group import Group
from lincon.attaching.living import living
from lincon.errors import LinconWarning, TargetError

_CALL = nn.Module._call_impl.__code__


class Watched(Protocol):
    """What is asked of a constraint."""

    owner: nn.Module
    trainable: frozenset[str]

    @property
    def vectors(self) -> list[FreeVector]:
        """The free vectors."""


_watched: "WeakSet[Watched]" = WeakSet()
_steps: "WeakKeyDictionary[Optimizer, int]" = WeakKeyDictionary()
"""How often each optimiser has stepped."""
_hook: RemovableHandle | None = None


def watch(constraint: Watched) -> None:
    """Look at optimisers that train the constraint's owner, or a part of it."""
    global _hook
    if _hook is None:
        _hook = register_optimizer_step_pre_hook(_before_step)
    _watched.add(constraint)


def unwatch(constraint: Watched) -> None:
    """Look no more: the constraint is taken off its model."""
    _watched.discard(constraint)


def running_module() -> nn.Module | None:
    """The outermost module whose forward runs in this thread; None in a backward, or if none does."""
    if torch._C._current_graph_task_id() != -1:  # checkpointing calls a block again in the backward
        return None
    outermost: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            outermost = frame
        frame = frame.f_back
    return None if outermost is None else outermost.f_locals["self"]


def warn_of_part(constraint: Watched, part: nn.Module) -> None:
    """Warn that a module reads weights whose free vector it does not have."""
    names = ", ".join(repr(vector.group.free) for vector in constraint.vectors)
    owner = type(constraint.owner).__name__
    warnings.warn(
        f"{names} of the {owner} is not among the parameters of this {type(part).__name__}, which "
        f"reads weights generated from it: an optimiser of its parameters will not train them. "
        f"Call the {owner} and give the optimiser its parameters, or lincon.merge a copy of it.",
        LinconWarning,
        stacklevel=2,
    )


def _before_step(optimizer: Optimizer, args: object, kwargs: object) -> None:
    """Of every optimiser: at its second step all that train the model have stepped once.

    What is frozen later is seen when the number of steps has doubled.
    """
    if torch.compiler.is_compiling():
        return
    number = _steps[optimizer] = _steps.get(optimizer, 0) + 1
    if number == 1 or number & (number - 1):
        return
    held = _held(optimizer)
    for constraint in list(_watched):
        if held & {id(parameter) for parameter in constraint.owner.parameters()}:
            _warn_of_frozen(constraint, held)
            if number == 2:
                _warn_of_optimizer(constraint)
                _warn_of_decay(constraint, optimizer)


def _held(optimizer: Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _warn_of_optimizer(constraint: Watched) -> None:
    """Warn of a free vector with a gradient that no optimiser holds."""
    free_vectors = [vector.parameter for vector in constraint.vectors]
    if not any(free.requires_grad and free.grad is not None for free in free_vectors):
        return
    held = set().union(*(_held(optimizer) for optimizer in living(Optimizer)))
    for vector, free in zip(constraint.vectors, free_vectors, strict=True):
        if free.requires_grad and free.grad is not None and id(free) not in held:
            owner = type(constraint.owner).__name__
            warnings.warn(
                f"{vector.group.free!r} has a gradient, but no optimiser holds it: the generated "
                f"weights do not train. Give the optimiser the parameters of the {owner}; those of "
                "its parts lack it.",
                LinconWarning,
                stacklevel=3,
            )


def _warn_of_decay(constraint: Watched, optimizer: Optimizer) -> None:
    """Warn if W was taken for a bias: it is among vectors that do not decay, and matrices do."""
    groups = optimizer.param_groups
    decaying = [p for group in groups if group.get("weight_decay") for p in group["params"]]
    if not decaying or any(parameter.dim() < 2 for parameter in decaying):
        return
    free = {id(vector.parameter): vector.group for vector in constraint.vectors}
    for name in filter(None, (_among_vectors(group["params"], free) for group in groups)):
        warnings.warn(
            f"{name!r} does not decay, as the norms and biases beside it: was it taken for one, "
            "because it is a vector? lincon.param_groups(model, weight_decay) lets it decay; a "
            "group of its own says that it shall not.",
            LinconWarning,
            stacklevel=3,
        )


def _among_vectors(parameters: list[torch.Tensor], free: dict[int, Group]) -> str:
    """The name of a free vector for weights, if all others that are given with it are vectors."""
    names = [free[id(p)].free for p in parameters if id(p) in free and free[id(p)].has_weights]
    dimensions = [p.dim() for p in parameters if id(p) not in free]
    return names[0] if names and dimensions and max(dimensions) < 2 else ""


def _warn_of_frozen(constraint: Watched, held: set[int]) -> None:
    """Warn of modules that were frozen once constrained, whose generated weights move."""
    trained = [
        vector
        for vector in constraint.vectors
        if vector.parameter.requires_grad and id(vector.parameter) in held
    ]
    for part, module in _frozen(constraint):
        for vector in trained:
            inside = vector.group.ledger.within([part])
            if any(inside):
                moving = vector.group.ledger.entries[inside.index(True)].name
                warnings.warn(
                    f"{type(module).__name__} {part!r} is frozen, but its generated weights "
                    f"({moving!r}, ...) move with {vector.group.free!r}. "
                    f"{_remedy(vector.group, inside)}",
                    LinconWarning,
                    stacklevel=3,
                )
                return


def freeze(constraint: Watched, part: nn.Module, requires_grad: bool) -> None:
    """Freeze the free vectors that a part of the owner has for itself, or let them train again.

    Raises:
        TargetError: the part shares a free vector that trains, and cannot be frozen alone.
    """
    modules = constraint.owner.named_modules(remove_duplicate=False)
    names = [name for name, module in modules if module is part]
    own: list[FreeVector] = []
    for vector in constraint.vectors:
        inside = vector.group.ledger.within(names)
        if all(inside):
            own.append(vector)
        elif any(inside) and vector.parameter.requires_grad and not requires_grad:
            raise TargetError(
                f"{names[0]!r} cannot be frozen alone: its generated weights move with "
                f"{vector.group.free!r}, which others read too. {_remedy(vector.group, inside)}"
            )
    for vector in own:
        vector.parameter.requires_grad_(requires_grad and vector.steps is None)


def _remedy(group: Group, inside: list[bool]) -> str:
    """How to freeze a part. ``inside`` says which tensors of the group are in it."""
    if all(inside):
        return f"Freeze that too: model.{group.free}.requires_grad_(False)."
    return (
        "Leave them out with where=..., or give them a free vector of their own with scope=... and "
        "freeze that."
    )


def _frozen(constraint: Watched) -> Iterator[tuple[str, nn.Module]]:
    """Parts whose parameters were trainable when they were constrained, and are not now.

    Where no parameter of the owner is, as when all biases are frozen, no part is frozen.
    """
    owner = constraint.owner
    free = {id(vector.parameter) for vector in constraint.vectors}
    if not any(p.requires_grad for p in owner.parameters() if id(p) not in free):
        return
    for name, module in owner.named_modules():
        own = {f"{name}.{each}": parameter for each, parameter in module.named_parameters()}
        trains = any(parameter.requires_grad for parameter in own.values())
        if name and own.keys() & constraint.trainable and not trains:
            yield name, module
