"""Tensors that are sharded over the ranks (torch's DTensor, under FSDP2)."""

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from lincon import errors
from lincon.errors import TargetError


def is_shard(tensor: Any) -> bool:
    """Whether other ranks hold parts of a tensor."""
    # Importing torch's class to test for it would take half a second.
    return hasattr(tensor, "_local_tensor")


def check_local(name: str, tensor: Tensor) -> None:
    """Raise TargetError if other ranks hold parts of a tensor."""
    if is_shard(tensor):
        raise TargetError(
            f"{name!r} is sharded over the ranks. Read weights in a forward, or after "
            "model.unshard(); change what is constrained before fully_shard."
        )


def gathered(tensor: Any) -> Any:
    """The complete tensor on every rank, a collective operation; other objects unchanged."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def shared(values: dict[str, Any], like: Any) -> dict[str, Any]:
    """The values that any rank has of those that hold parts of ``like``, on all of them.

    This is a collective operation of these ranks. Where several have a value, the first one's counts.
    """
    for group in like.device_mesh.get_all_groups():
        everywhere: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(everywhere, values, group)
        values = {name: value for each in reversed(everywhere) for name, value in each.items()}
    return values


def shard_like(tensor: Tensor, like: Any) -> Tensor:
    """The first rank's tensor, sharded as ``like`` is, or the tensor itself if ``like`` is not.

    Sharding is a collective operation.
    """
    if not is_shard(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device, like.dtype), like.device_mesh, like.placements)


def check_unsharded(model: nn.Module) -> None:
    """Raise TargetError if FSDP2 manages a module of the model, even one gathered at present."""
    for name, module in model.named_modules():
        if any(cls.__name__ == "FSDPModule" for cls in type(module).__mro__):
            raise TargetError(
                f"{name or type(module).__name__!r} is sharded over the ranks: change what is "
                "constrained before fully_shard, or load the file into an unsharded model first."
            )


def on_first(tensor: Any) -> Any:
    """The complete tensor of a shard on the first rank's CPU, and None on the other ranks.

    This is a collective operation. Objects that are not shards are returned unchanged.
    """
    if not is_shard(tensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if dist.get_rank() == 0 else None


def on_every_rank(work: Callable[[], Any]) -> Any:
    """Run ``work`` on every rank, and return its result here. If one rank raises, all raise.

    This is a collective operation.
    """
    result, error = None, None
    try:
        result = work()
    except Exception as raised:  # the other ranks wait for the outcome of this one
        error = raised
    failures: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(failures, None if error is None else (type(error).__name__, str(error)))
    if error is not None:
        raise error
    for rank, failure in enumerate(failures):
        if failure is not None:
            kind, message = failure
            raise getattr(errors, kind, errors.LinconError)(f"Rank {rank}: {message}")
    return result


def on_first_rank(work: Callable[[], Any]) -> Any:
    """Run ``work`` on the first rank, and return its result on all. If it raises, all raise.

    This is a collective operation.
    """
    result = [on_every_rank(lambda: work() if dist.get_rank() == 0 else None)]
    dist.broadcast_object_list(result, 0)
    return result[0]
