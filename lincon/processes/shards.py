"""Tensors of which every rank holds a part (torch's DTensor, under FSDP2): to know, to gather and
to fill them."""

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from lincon import errors
from lincon.errors import TargetError


def is_shard(tensor: Any) -> bool:
    """Whether other ranks hold parts of it. (By an attribute: importing torch's class takes half a
    second.)"""
    return hasattr(tensor, "_local_tensor")


def check_local(name: str, tensor: Tensor) -> None:
    """Raise TargetError if other ranks hold parts of it."""
    if is_shard(tensor):
        raise TargetError(
            f"{name!r} is sharded over the ranks. Weights can be read in a forward, or after "
            "model.unshard(); "
            "to change what is constrained, do so before fully_shard."
        )


def gathered(tensor: Any) -> Any:
    """The whole of it on every rank, a collective; what is no shard is as it was."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def shard_like(tensor: Tensor, like: Any) -> Tensor:
    """A tensor in the shards of ``like``, a collective in which the first rank's counts; or as it
    is."""
    if not is_shard(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device, like.dtype), like.device_mesh, like.placements)


def check_unsharded(model: nn.Module) -> None:
    """Raise TargetError if FSDP2 holds a module of the model, also where it is gathered at present."""
    for name, module in model.named_modules():
        if any(cls.__name__ == "FSDPModule" for cls in type(module).__mro__):
            raise TargetError(
                f"{name or type(module).__name__!r} is sharded over the ranks: what is constrained "
                "is changed before "
                "fully_shard, or in an unsharded model that its file is loaded into."
            )


def on_first(tensor: Any) -> Any:
    """The whole of a shard, in the first rank's ordinary memory; None on the others. A collective;
    else as it was."""
    if not is_shard(tensor):
        return tensor
    whole = tensor.full_tensor()
    return whole.cpu() if dist.get_rank() == 0 else None


def on_every_rank(work: Callable[[], Any]) -> Any:
    """What ``work`` returns here; if it raises on any rank, every rank raises. A collective."""
    found, error = None, None
    try:
        found = work()
    except Exception as raised:  # the others wait for what became of it
        error = raised
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, None if error is None else (type(error).__name__, str(error)))
    if error is not None:
        raise error
    for rank, outcome in enumerate(said):
        if outcome is not None:
            kind, message = outcome
            raise getattr(errors, kind, errors.LinconError)(f"Rank {rank}: {message}")
    return found


def on_first_rank(work: Callable[[], Any]) -> Any:
    """What ``work`` returns on the first rank, on every rank; if it raises there, every rank
    raises. A collective."""
    found = [on_every_rank(lambda: work() if dist.get_rank() == 0 else None)]
    dist.broadcast_object_list(found, 0)
    return found[0]
