"""Loading a model file: `load`.

Everything is checked before the model changes. If loading fails later, all changes are undone.
"""

import os
from dataclasses import replace

import torch
from torch import Tensor, nn

from lincon.attaching.binding import bind, unbind, unwrapped, warn_of_stale_optimizers
from lincon.attaching.constraint import Constraint, owned
from lincon.attaching.group import Group
from lincon.attaching.targets import Target
from lincon.errors import FileError
from lincon.files.matching import OwnerPlan, Plan, dtype_beside, match
from lincon.processes.shards import is_shard, on_every_rank, shard_like


def load(model: nn.Module, path: str | os.PathLike[str]) -> list[Constraint]:
    """Constrain ``model`` as the file says and fill it, bit for bit.

    Args:
        model: a model of the architecture that was saved, either fresh or constrained in the same
            way. With an offset, it must hold the same W₀. Values take the model's own dtypes. If
            the model is sharded over ranks, every rank must call `load` and read the file.
        path: a file that `save` wrote.

    Returns:
        The constraints.

    Raises:
        FileError: the file is damaged or does not fit. The model is then unchanged.
        TargetError: the model's tensors cannot be constrained. The model is then unchanged.
        FileNotFoundError: there is no such file.

    >>> import lincon, tempfile, torch
    >>> model, fresh = nn.Linear(8, 4), nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "hash", dof=16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = lincon.save(model, f"{folder}/model.safetensors")
    ...     constraints = lincon.load(fresh, f"{folder}/model.safetensors")
    >>> torch.equal(model.weight, fresh.weight)
    True
    """
    model = unwrapped(model)
    sharded = any(is_shard(tensor) for tensor in model.state_dict().values())
    with torch.inference_mode(False):
        plan = on_every_rank(lambda: match(model, path)) if sharded else match(model, path)
    try:
        _follow(model, plan)
    except KeyError as error:  # torch raises it if a name is taken
        raise FileError(f"{path} does not fit this {type(model).__name__}: {error}") from None
    replaced = [target.tensor for owner in plan.owners for target in owner.targets]
    if replaced:
        warn_of_stale_optimizers(replaced)
    return [constraint for _, constraint in owned(model)]


def _follow(model: nn.Module, plan: Plan) -> None:
    """Carry out the plan. If that fails, undo it."""
    bound: list[tuple[Constraint, list[Target]]] = []
    try:
        for owner in plan.owners:
            if owner.targets:
                with torch.inference_mode(False):  # what is loaded can be trained
                    bound.append((_bind(model, owner, plan.state), owner.targets))
        _fill(model, plan.state)
    except BaseException:
        for constraint, targets in bound:
            unbind(constraint, {name: t.tensor for t in targets for name in t.names})
        raise


def _bind(model: nn.Module, plan: OwnerPlan, state: dict[str, Tensor]) -> Constraint:
    """Constrain an owner as the plan says, on the devices and in the dtypes of its tensors."""
    present = {target.name: target.tensor for target in plan.targets}
    values = dict(plan.origins)
    groups = []
    for group in plan.groups:
        members = [present[entry.name] for entry in group.ledger]
        device, dtype = members[0].device, members[0].dtype
        for name in (group.free, group.steps):
            if name is not None:
                stored = state[plan.prefix + name]
                values[name] = stored.to(device, dtype_beside(stored, dtype))
        groups.append(_placed(group, members))
    owner = model.get_submodule(plan.prefix.rstrip("."))
    return bind(owner, groups, plan.targets, values)


def _placed(group: Group, members: list[nn.Parameter]) -> Group:
    """The group with the devices of the model's tensors."""
    first = members[0].device
    devices = tuple(None if m.device == first else str(m.device) for m in members)
    return replace(group, devices=devices if any(devices) else ())


def _fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the tensors of the file. Others (W₀) stay as they are."""
    complete = model.state_dict()  # including its metadata, the versions of the modules
    for name, tensor in state.items():
        complete[name] = shard_like(tensor, complete.get(name))
    model.load_state_dict(complete)
