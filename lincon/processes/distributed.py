"""Many processes: sharding a constrained model by FSDP2, and checking that all ranks agree.

DDP needs none of this. A free vector is an ordinary Parameter, so the weights of a model cost an
all-reduce of ``dof`` numbers a step. Under FSDP2 the owner of a constraint gathers its free vector
before its forward, and its blocks read the weights that are generated from it. So the owner or the
root must gather the free vector.
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
    """Shard a constrained model over the ranks by torch's FSDP2, in place.

    It shards each block and then the model itself. So the model gathers the free vectors of all
    owners that are not blocks, once for the whole forward. Every rank must call this function,
    after `lincon.constrain` and before the optimiser is made.

    Args:
        model: a model that is constrained in the same way on all ranks.
        blocks: modules of the model, such as ``model.layers``. Each gathers its own parameters
            (norms, biases, weights that are not generated) when its forward runs. Without blocks
            the model gathers everything.
        options: options of `torch.distributed.fsdp.fully_shard`: mesh, mp_policy, offload_policy
            and so on.

    Returns:
        The model.

    Raises:
        TargetError: a block is not in the model, or parameters are sharded already.
        LinconError: two ranks have different constraints (see `check_ranks`), or there is no
            process group.
    """
    from torch.distributed.fsdp import fully_shard as shard

    if not dist.is_initialized():
        raise LinconError(
            "There is no process group: call torch.distributed.init_process_group() first, "
            "under torchrun."
        )
    parts = list(blocks)
    members = {id(module) for module in model.modules()}
    for part in parts:
        if id(part) not in members:
            raise TargetError(
                f"A {type(part).__name__} among the blocks is not a part of "
                f"this {type(model).__name__}."
            )
    for name, tensor in model.named_parameters():
        if is_shard(tensor):
            raise TargetError(f"{name!r} is sharded already.")
    check_ranks(model)
    # A block inside another one must be sharded first.
    depth = {id(module): name.count(".") for name, module in model.named_modules() if name}
    inner_first = sorted(
        (part for part in parts if part is not model), key=lambda part: -depth[id(part)]
    )
    for part in [*inner_first, model]:
        shard(part, **options)
    return model


def check_ranks(model: nn.Module) -> None:
    """Check that all ranks have the same map from W to Ŵ: the same generators, ledgers and W₀.

    This is a collective operation: every rank must call it. Free vectors may differ, because DDP
    sends those of the first rank to all. A single process always passes.

    Raises:
        LinconError: two ranks differ. Every rank raises it.
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
    for rank, digests in enumerate(everywhere):
        if digests != first:
            differing = {name for name, _ in {*digests} ^ {*first}}
            names = ", ".join(sorted(differing)) or "all, in another order"
            raise LinconError(
                f"Rank {rank} constrains this {type(model).__name__} in another way than rank 0 "
                f"(generator, seed, ledger or W₀ of {names}): "
                "give all ranks one seed and the same initial model."
            )


def _digest(vector: FreeVector) -> str:
    """SHA-256 of everything that must be the same on every rank."""
    record = GroupRecord.of(vector).to_json()
    steps = None if vector.steps is None else sha_of(vector.steps)
    digested = json.dumps([record, steps, vector.group.gradient])
    return hashlib.sha256(digested.encode()).hexdigest()
