"""Many processes: what torch's FSDP2 needs beside `fully_shard`, and what all ranks of a training must agree on.

DDP needs nothing of this: a free vector is a Parameter like others, and an all-reduce of ``dof`` numbers a step is all
that a model's weights cost. Under FSDP2 the owner of a constraint gathers its free vector before its forward, and its
blocks read the weights made of it: so the free vector must be among what the owner, or the root, gathers.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn

from lincon.attaching.constraint import owned
from lincon.attaching.group import Group
from lincon.errors import LinconError, TargetError
from lincon.files.header import sha_of
from lincon.processes.shards import is_shard


def fully_shard(model: nn.Module, blocks: Iterable[nn.Module] = (), **options: Any) -> nn.Module:
    """Shard a constrained model over the ranks, in place, by torch's FSDP2: each block, then the model itself.

    The model is the last one, so the free vectors of all owners that are no block are gathered once a forward for the
    whole of it. To be called by every rank, after `lincon.constrain` and before the optimizer is made.

    Args:
        model: constrained in the same way on all ranks.
        blocks: modules of it that gather what they have of their own (norms, biases, weights that are not generated)
            when their turn comes, such as ``model.layers``; the model alone where there are none.
        options: of `torch.distributed.fsdp.fully_shard`: mesh, mp_policy, offload_policy and so on.

    Returns:
        The model.

    Raises:
        TargetError: a block that is not in the model, or parameters that are sharded already.
        LinconError: the constraints of two ranks are not the same (see `check_ranks`), or no process group is there.
    """
    from torch.distributed.fsdp import fully_shard as shard

    if not dist.is_initialized():
        raise LinconError(
            "There is no process group: torch.distributed.init_process_group() first, under torchrun."
        )
    parts = list(blocks)
    inside = {id(module) for module in model.modules()}
    if strange := next((part for part in parts if id(part) not in inside), None):
        raise TargetError(
            f"A {type(strange).__name__} among the blocks is not a part of this {type(model).__name__}."
        )
    if name := next((name for name, tensor in model.named_parameters() if is_shard(tensor)), None):
        raise TargetError(f"{name!r} is sharded already.")
    check_ranks(model)
    depth = {id(module): name.count(".") for name, module in model.named_modules() if name}
    for part in sorted(
        (part for part in parts if part is not model), key=lambda part: -depth[id(part)]
    ):
        shard(part, **options)
    shard(model, **options)
    return model


def check_ranks(model: nn.Module) -> None:
    """Raise LinconError on every rank unless all have the same generators, ledgers and W₀: the same map from W to Ŵ.

    A collective: every rank must call it. Free vectors may differ, as DDP sends those of the first rank to all. One
    process alone passes.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    mine = [(prefix + g.free, _digest(c.owner, g)) for prefix, c in owned(model) for g in c.groups]
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, mine)
    for rank, theirs in enumerate(every):
        if theirs != every[0]:
            other = sorted({name for name, _ in {*theirs} ^ {*every[0]}}) or [
                "all, in another order"
            ]
            raise LinconError(
                f"Rank {rank} constrains this {type(model).__name__} in another way than rank 0 (generator, seed, "
                f"ledger or W₀ of {', '.join(other)}): give all ranks one seed, and one model to begin with."
            )


def _digest(owner: nn.Module, group: Group) -> str:
    generator = group.generator
    described = (
        generator.spec(),
        generator.fingerprint(),
        group.ledger.to_json(),
        group.isometric,
        group.gradient,
    )
    sha = hashlib.sha256(json.dumps(described).encode())
    for name in group.buffers:
        buffer = owner._buffers[name]
        if buffer is not None and not buffer.is_meta:
            sha.update(sha_of(buffer).encode())
    return sha.hexdigest()
