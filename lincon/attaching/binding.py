"""Binding a constraint to a model and taking it off again: `bind`, `merge`. All or nothing."""

import gc
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lincon.attaching.constraint import Constraint, Group, constraints
from lincon.attaching.targets import Target
from lincon.errors import LinconWarning, TargetError
from lincon.processes.shards import check_unsharded
from lincon.step.generated import Generated, install, uninstall

_WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
}
"""By name, as importing the compiler takes long."""

_HOLDERS = torch.optim.Optimizer, DistributedDataParallel

_LOWERED = nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention


def bind(
    model: nn.Module, groups: list[Group], chosen: list[Target], values: Mapping[str, Tensor]
) -> Constraint:
    """Register free vectors and origins, put a `Generated` in each place, add the hooks.

    ``values``: of every free vector and buffer of a group. If anything fails, the model is as it was.
    """
    by_name = {name: target for target in chosen for name in target.names}
    groups = [
        replace(g, lowered=all(_lowered(by_name[entry.name]) for entry in g.ledger)) for g in groups
    ]
    constraint = Constraint(model, groups)
    try:
        for group in groups:
            free = values[group.free]
            model.register_parameter(
                group.free, nn.Parameter(free, requires_grad=free.is_floating_point())
            )
            for buffer in group.buffers:
                model.register_buffer(buffer, values[buffer])
        for number, group in enumerate(groups):
            for index, entry in enumerate(group.ledger):
                for module, attribute in by_name[entry.name].places:
                    install(
                        module, attribute, Generated(constraint.read, (number, index), entry.name)
                    )
    except BaseException:
        unbind(constraint, {name: target.tensor for name, target in by_name.items()})
        raise
    model.register_forward_pre_hook(constraint._open)
    model.register_forward_hook(constraint._close, always_call=True)
    model.register_load_state_dict_pre_hook(constraint._load)
    return constraint


def unbind(constraint: Constraint, parameters: Mapping[str, nn.Parameter]) -> None:
    """Undo `bind`, with an ordinary Parameter for each entry of the ledger, by its first name."""
    owner = constraint.owner
    for module in list(owner.modules()):
        for attribute, generated in generated_in(module):
            if generated.read.__self__ is constraint:
                entry = constraint.groups[generated.key[0]].ledger.entries[generated.key[1]]
                uninstall(module, attribute, parameters[entry.name])
    for group in constraint.groups:
        owner._parameters.pop(group.free, None)
        for buffer in group.buffers:
            owner._buffers.pop(buffer, None)
    for hooks in (owner._forward_pre_hooks, owner._forward_hooks, owner._load_state_dict_pre_hooks):
        _remove_hooks(hooks, owner, constraint)


def merge(model: nn.Module) -> nn.Module:
    """Make a constrained model an ordinary one, in place: plain Parameters, plain keys, the same outputs bit for bit.

    Returns the model; to train on, make the optimizer again. Raises TargetError, and changes nothing, if there is
    nothing to merge, if the free vectors belong to a module outside of ``model``, or if a weight has been parametrized
    once more.
    """
    check_changeable(model)
    found = constraints(model)
    if not found:
        raise TargetError(f"{type(model).__name__} has no constraint to merge.")
    for constraint in found:
        with torch.no_grad():
            weights = {name: weight.clone() for name, weight in constraint.weights().items()}
        trained = {
            e.name: constraint._free(group).requires_grad or group.steps is not None
            for group in constraint.groups
            for e in group.ledger
        }
        unbind(
            constraint,
            {name: nn.Parameter(weight, trained[name]) for name, weight in weights.items()},
        )
    return model


def check_changeable(model: nn.Module) -> None:
    """Raise TargetError for a model that is sharded, or not whole."""
    check_unsharded(model)
    check_whole(model)


def check_whole(model: nn.Module) -> None:
    """Raise TargetError unless every generated weight in the model is its own constraint's, and the last word."""
    owners = {id(module) for module in model.modules()}
    for module in model.modules():
        for _, generated in generated_in(module):
            constraint: Constraint = generated.read.__self__
            if id(constraint.owner) not in owners:
                raise TargetError(
                    f"{generated.name!r} is generated from a free vector of {type(constraint.owner).__name__}, which "
                    f"is not part of this {type(model).__name__}: save or merge the model that owns it."
                )
    for constraint in constraints(model):
        _check_ledger(constraint)


def _check_ledger(constraint: Constraint) -> None:
    for number, group in enumerate(constraint.groups):
        for index, entry in enumerate(group.ledger):
            path, _, attribute = entry.name.rpartition(".")
            with suppress(AttributeError):
                steps = dict(generated_in(constraint.owner.get_submodule(path), whole=True)).get(
                    attribute
                )
                if steps is not None and len(steps) == 1 and steps[0].key == (number, index):
                    continue
            raise TargetError(
                f"{entry.name!r} is no longer what was constrained: its module was replaced, or it was parametrized "
                "once more. lincon.merge before changing a model, constrain again after."
            )


def generated_in(module: nn.Module, whole: bool = False) -> list[tuple[str, Any]]:
    """(attribute, Generated) of each generated weight of a module itself (or all its parametrizations in order)."""
    stored = module._modules.get("parametrizations")
    if not isinstance(stored, nn.ModuleDict):
        return []
    pairs: list[tuple[str, Any]] = list(stored.items())
    pairs = [(attribute, steps) for attribute, steps in pairs if isinstance(steps[0], Generated)]
    return pairs if whole else [(attribute, steps[0]) for attribute, steps in pairs]


def warn_of_holders(replaced: list[Any]) -> None:
    """Warn of optimizers, and of DDP, that hold parameters which are no longer the model's."""
    gone, objects = {id(p) for p in replaced}, gc.get_objects()
    kinds = {
        kind for kind in set(map(type, objects)) if issubclass(kind, _HOLDERS)
    }  # few, of many thousand objects
    for thing in (thing for thing in objects if type(thing) in kinds):
        with suppress(AttributeError, KeyError):
            if any(id(p) in gone for p in _held(thing)):
                warnings.warn(
                    f"The {type(thing).__name__} made before still holds the replaced parameters and will not train "
                    "the new ones: make it again.",
                    LinconWarning,
                    stacklevel=3,
                )


def _held(holder: Any) -> list[Any]:
    if isinstance(holder, torch.optim.Optimizer):
        return [p for g in holder.param_groups for p in g["params"]]
    return list(holder._module_parameters)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of torch.compile, DDP or DataParallel, which put a prefix before its keys."""
    while inner := next(
        (name for cls, name in _WRAPPERS.items() if cls in _names(type(model))), None
    ):
        model = getattr(model, inner)
    return model


def _names(cls: type) -> set[str]:
    return {f"{base.__module__}.{base.__name__}" for base in cls.__mro__}


def _lowered(target: Target) -> bool:
    """Whether autocast casts this weight wherever it is used."""
    return all(isinstance(module, _LOWERED) for module, _ in target.places)


def _remove_hooks(hooks: Any, owner: nn.Module, constraint: Constraint) -> None:
    for number, hook in list(hooks.items()):
        function = getattr(hook, "hook", hook)
        if getattr(function, "__self__", None) is constraint:
            del hooks[number]
            for companion in (owner._forward_hooks_always_called, owner._forward_hooks_with_kwargs):
                companion.pop(number, None)
