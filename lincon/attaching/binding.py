"""Binding a constraint to a model and removing it again: `bind`, `unbind`, `merge`."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from lincon.attaching.constraint import Constraint, check_module, constraints, owned
from lincon.attaching.group import Group
from lincon.attaching.living import living
from lincon.attaching.parts import unwatch
from lincon.attaching.shadows import put_shadows, remove_shadows
from lincon.attaching.targets import Target, check_one_dtype
from lincon.errors import LinconWarning, TargetError
from lincon.files.entry import name_beside
from lincon.processes.shards import check_unsharded
from lincon.step.generated import Generated, generated_in, install, uninstall

_WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
}
"""The attribute of each wrapper that holds the model. Importing the classes would take long."""

_HOLDERS = torch.optim.Optimizer, DistributedDataParallel, AveragedModel
"""Objects that keep their own lists of parameters, or a copy of a model."""

_LOWERED = nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention
"""Modules whose weights autocast always casts to lower precision."""


def bind(
    model: nn.Module, groups: list[Group], chosen: list[Target], values: Mapping[str, Tensor]
) -> Constraint:
    """Register free vectors and origins, put a `Generated` in each place, and add the hooks.

    ``values`` holds every free vector and buffer by name. If anything fails, nothing has changed.
    """
    by_name = {name: target for target in chosen for name in target.names}
    for group in groups:
        check_one_dtype([by_name[entry.name] for entry in group.ledger])
    groups = _completed(groups, model, by_name)
    constraint = Constraint(model, groups)
    try:
        for group in groups:
            model.register_buffer(group.entry, None)
            free = values[group.free]
            parameter = nn.Parameter(free, requires_grad=free.is_floating_point())
            model.register_parameter(group.free, parameter)
            for buffer in group.buffers:
                model.register_buffer(buffer, values[buffer])
        for number, group in enumerate(groups):
            for index, entry in enumerate(group.ledger):
                for module, attribute in by_name[entry.name].places:
                    spot = constraint.state.spots[number][index]
                    generated = Generated(constraint, (number, index), entry.name, spot)
                    install(module, attribute, generated)
    except BaseException:
        unbind(constraint, {name: target.tensor for name, target in by_name.items()})
        raise
    put_shadows(constraint)
    before_forward, after_forward, before_load, after_state = constraint.hooks()
    model.register_forward_pre_hook(before_forward)
    model.register_forward_hook(after_forward, always_call=True)
    model.register_load_state_dict_pre_hook(before_load)
    model._register_state_dict_hook(after_state)  # torch's public one takes no bound method
    return constraint


def _completed(groups: list[Group], model: nn.Module, targets: Mapping[str, Target]) -> list[Group]:
    """The groups with what the model decides: lower precision, and names of their entries."""
    names = {name for group in groups for name in (group.free, *group.buffers)}
    return [
        replace(
            group,
            lowered=_is_lowered(group, targets),
            entry=free_name(name_beside(group.free), model, names),
        )
        for group in groups
    ]


def free_name(wanted: str, model: nn.Module, taken: set[str]) -> str:
    """A name that neither the model nor ``taken`` has yet. It is added to ``taken``."""
    name, number = wanted, 1
    while name in taken or hasattr(model, name):
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def unbind(constraint: Constraint, parameters: Mapping[str, nn.Parameter]) -> None:
    """Undo `bind`. ``parameters`` takes each entry's place, by the first name of the entry."""
    unwatch(constraint)
    owner = constraint.owner
    remove_shadows(constraint)
    for module in list(owner.modules()):
        for attribute, generated in list(generated_in(module).items()):
            if generated.source is constraint:
                number, index = generated.key
                entry = constraint.groups[number].ledger.entries[index]
                uninstall(module, attribute, parameters[entry.name])
    for group in constraint.groups:
        owner._parameters.pop(group.free, None)
        for buffer in (*group.buffers, group.entry):
            owner._buffers.pop(buffer, None)
        vars(owner).pop(group.entry, None)
    _remove_hooks(owner._state_dict_hooks, owner, constraint)
    _remove_hooks(owner._load_state_dict_pre_hooks, owner, constraint)
    for module in owner.modules():  # a part that is called in the owner's place has hooks too
        _remove_hooks(module._forward_pre_hooks, module, constraint)
        _remove_hooks(module._forward_hooks, module, constraint)


def merge(model: nn.Module) -> nn.Module:
    """Turn a constrained model into an ordinary one, in place, with plain Parameters and keys.

    The outputs stay the same bit for bit. A weight is found where it is now, and what was registered
    on top of it (another parametrization, a LoRA layer around it) stays. An existing optimiser holds
    the old Parameters: make a new one to train further.

    Returns:
        The model.

    Raises:
        TargetError: nothing is constrained, or the free vectors belong to a module outside of
            ``model``. The model is then unchanged.

    >>> import lincon
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> before = model.weight.clone()
    >>> bool((lincon.merge(model).weight == before).all())
    True
    """
    check_module(model)
    check_unsharded(model)
    _check_owned(model)
    placed = constraints(model)
    if not placed:
        raise TargetError(f"{type(model).__name__} has no constraint to merge.")
    for constraint in placed:
        with torch.inference_mode(False), torch.no_grad():
            weights = {name: weight.clone() for name, weight in constraint.weights().items()}
        trained = {}
        for vector in constraint.vectors:
            is_trained = vector.parameter.requires_grad or vector.steps is not None
            trained.update({entry.name: is_trained for entry in vector.group.ledger})
        parameters = {name: nn.Parameter(w, trained[name]) for name, w in weights.items()}
        unbind(constraint, parameters)
    return model


def check_changeable(model: nn.Module) -> None:
    """Raise TargetError if a model is sharded or not complete."""
    check_module(model)
    check_unsharded(model)
    check_complete(model)


def check_complete(model: nn.Module) -> None:
    """Raise TargetError unless the model owns all its free vectors and its weights are in place."""
    _check_owned(model)
    for prefix, constraint in owned(model):
        owner = f"model.{prefix.rstrip('.')}" if prefix else "model"
        for number, group in enumerate(constraint.groups):
            for index, entry in enumerate(group.ledger):
                if not _is_in_place(constraint, entry.name, (number, index)):
                    raise TargetError(
                        f"{prefix + entry.name!r} is no longer what was constrained: its module "
                        "was replaced or wrapped, or it was parametrized again. "
                        f"lincon.merge({owner}) keeps what is there; it can be constrained again."
                    )


def _check_owned(model: nn.Module) -> None:
    """Raise TargetError unless the model has the free vectors of all its generated weights."""
    members = {id(module) for module in model.modules()}
    for module in model.modules():
        for generated in generated_in(module).values():
            owner = generated.source.owner
            if id(owner) not in members:
                raise TargetError(
                    f"{generated.name!r} is generated from a free vector of "
                    f"{type(owner).__name__}, which is not part of this {type(model).__name__}: "
                    "give the model that owns it."
                )
    for constraint in constraints(model):
        for vector in constraint.vectors:
            vector.check_present()


def _is_in_place(constraint: Constraint, name: str, key: tuple[int, int]) -> bool:
    """Whether the tensor of this name is generated from entry ``key`` and from nothing else."""
    path, _, attribute = name.rpartition(".")
    try:
        module = constraint.owner.get_submodule(path)
    except AttributeError:
        return False
    generated = generated_in(module).get(attribute)
    return generated is not None and len(generated) == 0 and generated.key == key


def warn_of_stale_optimizers(replaced: list[Any]) -> None:
    """Warn of optimisers and DDP wrappers that hold parameters the model no longer has."""
    stale = {id(parameter) for parameter in replaced}
    for holder in living(*_HOLDERS):
        with suppress(AttributeError, KeyError):  # its constructor has not finished
            if isinstance(holder, AveragedModel):
                is_stale = _averages(holder, replaced)
            else:
                is_stale = any(id(parameter) in stale for parameter in _parameters_of(holder))
            if is_stale:
                warnings.warn(
                    f"The {type(holder).__name__} made before still holds the replaced parameters "
                    "and will not train the new ones: make it again.",
                    LinconWarning,
                    stacklevel=3,
                )


def _averages(average: AveragedModel, replaced: list[Any]) -> bool:
    """Whether an average was made of the model: as a copy, it has tensors of the same values."""
    if constraints(average):
        return False
    own = list(average.parameters())
    return any(p.shape == q.shape and torch.equal(p, q.to(p)) for p in own for q in replaced[:1])


def _parameters_of(holder: torch.optim.Optimizer | DistributedDataParallel) -> list[Any]:
    if isinstance(holder, torch.optim.Optimizer):
        return [parameter for group in holder.param_groups for parameter in group["params"]]
    return list(holder._module_parameters)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile, DDP or DataParallel, which put a prefix before its keys.

    Raises TargetError if it is no module.
    """
    check_module(model)
    while (attribute := _wrapped_attribute(type(model))) is not None:
        model = getattr(model, attribute)
    return model


def _wrapped_attribute(cls: type) -> str | None:
    for base in cls.__mro__:
        name = f"{base.__module__}.{base.__name__}"
        if name in _WRAPPERS:
            return _WRAPPERS[name]
    return None


def _is_lowered(group: Group, targets: Mapping[str, Target]) -> bool:
    """Whether autocast casts every weight of a group in all its uses."""
    return all(
        isinstance(module, _LOWERED)
        for entry in group.ledger
        for module, _ in targets[entry.name].places
    )


def _remove_hooks(hooks: Any, owner: nn.Module, constraint: Constraint) -> None:
    for number, hook in list(hooks.items()):
        function = getattr(hook, "hook", hook)
        bound_to = getattr(function, "__self__", None)
        if bound_to is constraint or bound_to is constraint.state:
            del hooks[number]
            owner._forward_hooks_always_called.pop(number, None)
            owner._forward_hooks_with_kwargs.pop(number, None)
