"""Lightning's strategy for FSDP2, over all processes: a copy of the model is sharded, and the model filled from it."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

import lincon
from lincon.processes.shards import gathered


class Sharded(ModelParallelStrategy):
    """What `--trainer.strategy fsdp` is. (Lightning's own strategy of that name is for FSDP1, which flattens a model's
    parameters, and for GPUs alone.) Checkpoints are whole, so a training goes on with any number of processes.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = (
            self.num_processes * self.num_nodes,
            1,
        )
        super().setup_environment()


def shard(model: nn.Module, mesh: Any) -> nn.Module:
    """A copy of the model that is sharded over the mesh, block by block."""
    for module, name, tensor in _made(model):
        setattr(module, name, tensor.detach())  # deepcopy refuses what has a graph
    copy = deepcopy(model)
    return lincon.fully_shard(copy, _blocks(copy), mesh=mesh)


def _made(model: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """What modules make of their parameters in every forward, and keep: weights that torch has pruned."""
    every = (
        (module, name, value) for module in model.modules() for name, value in vars(module).items()
    )
    return [(module, name, value) for module, name, value in every if isinstance(value, Tensor)]


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Parts that are called and have parameters of their own, those in lists one by one."""
    for part in model.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from _blocks(part)
        elif type(part).forward is not nn.Module.forward and any(True for _ in part.parameters()):
            yield part


def fill(model: nn.Module, copy: nn.Module) -> None:
    """Give a model the values of its sharded copy. A collective."""
    agree(copy)
    model.load_state_dict({name: gathered(tensor) for name, tensor in copy.state_dict().items()})
    for (module, name, old), (_, _, tensor) in zip(_made(model), _made(copy), strict=True):
        setattr(module, name, tensor.detach().to(old.device))


def agree(copy: nn.Module) -> None:
    """Give every process the buffers of the first, such as statistics of norms, as DDP does. A collective."""
    for buffer in copy.buffers():
        dist.broadcast(buffer, 0)
