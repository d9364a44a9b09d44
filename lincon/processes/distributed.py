"""Many processes: what torch's FSDP2 needs beside `fully_shard`, and what all ranks of a training
must agree on.

DDP needs nothing of this: a free vector is a Parameter like others, and an all-reduce of ``dof``
numbers a step is all that a model's weights cost. Under FSDP2 the owner of a constraint gathers its
free vector before its forward, and its
blocks read the weights made of it: so the free vector must be among what the owner, or the root,
gathers.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn

from lincon.attaching.constraint import owned
from lincon.attaching.free_vector import FreeVector
from lincon.errors import LinconError, TargetError
from lincon.files.description import GroupRecord, sha_of
from lincon.processes.shards import is_shard


def fully_shard(model: nn.Module, blocks: Iterable[nn.Module] = (), **options: Any) -> nn.Module:
    """Shard a constrained model over the ranks, in place, by torch's FSDP2: each block, then the
    model itself.

    The model is the last one, so the free vectors of all owners that are no block are gathered once
    a forward for the whole of it. To be called by every rank, after `lincon.constrain` and before
    the optimizer is made.

    Args:
        model: constrained in the same way on all ranks.
        blocks: modules of it that gather what they have of their own (norms, biases, weights that
            are not generated) when their turn comes, such as ``model.layers``; the model alone
            where there are none.
        options: of `torch.distributed.fsdp.fully_shard`: mesh, mp_policy, offload_policy and so on.

    Returns:
        The model.

    Raises:
        TargetError: a block that is not in the model, or parameters that are sharded already.
        LinconError: the constraints of two ranks are not the same (see `check_ranks`), or no
            process group is there.
    """
    from torch.distributed.fsdp import fully_shard as shard

    if not dist.is_initialized():
        raise LinconError(
            "There is no process group: torch.distributed.init_process_group() first, under "
            "torchrun."
        )
    parts = list(blocks)
    members = {id(module) for module in model.modules()}
    for part in parts:
        if id(part) not in members:
            raise TargetError(
                f"A {type(part).__name__} among the blocks is not a part of this "
                f"{type(model).__name__}."
            )
    for name, tensor in model.named_parameters():
        if is_shard(tensor):
            raise TargetError(f"{name!r} is sharded already.")
    check_ranks(model)
    # A block inside of another one must be sharded before it.
    depth = {id(module): name.count(".") for name, module in model.named_modules() if name}
    inner_first = sorted(
        (part for part in parts if part is not model), key=lambda part: -depth[id(part)]
    )
    for part in [*inner_first, model]:
        shard(part, **options)
    return model


def check_ranks(model: nn.Module) -> None:
    """Raise LinconError on every rank unless all have the same generators, ledgers and W₀: the same
    map from W to Ŵ.

    A collective: every rank must call it. Free vectors may differ, as DDP sends those of the first
    rank to all. One process alone passes.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    here = [
        (prefix + vector.group.free, _digest(vector))
        for prefix, constraint in owned(model)
        for vector in constraint.vectors
    ]
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, here)
    first = everywhere[0]
    for rank, there in enumerate(everywhere):
        if there != first:
            differing = {name for name, _ in {*there} ^ {*first}}
            names = ", ".join(sorted(differing)) or "all, in another order"
            raise LinconError(
                f"Rank {rank} constrains this {type(model).__name__} in another way than rank 0 "
                "(generator, seed, "
                f"ledger or W₀ of {names}): give all ranks one seed, and one model to begin with."
            )


def _digest(vector: FreeVector) -> str:
    """Of all that must be the same on every rank; free vectors may differ."""
    record = GroupRecord.of(vector).to_json()
    steps = None if vector.steps is None else sha_of(vector.steps)
    digested = json.dumps([record, steps, vector.group.gradient])
    return hashlib.sha256(digested.encode()).hexdigest()
