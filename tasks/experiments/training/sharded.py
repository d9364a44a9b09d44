"""Lightning's strategy for FSDP2.

A sharded copy of the model is trained, and the model is filled from it.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn

import lincon
from lincon.processes.shards import gathered


class Sharded(ModelParallelStrategy):
    """The strategy of `--trainer.strategy fsdp`, over all processes.

    Lightning's own strategy of that name is for FSDP1, which flattens a model's parameters, and
    for GPUs alone. Checkpoints are whole, so a training goes on with any number of processes.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_processes * self.num_nodes
        self._tensor_parallel_size = 1
        super().setup_environment()


def shard(model: nn.Module, mesh: Any) -> nn.Module:
    """A copy of the model that is sharded over the mesh, block by block."""
    for module, name, tensor in _kept_tensors(model):
        # deepcopy refuses a tensor that has a graph.
        setattr(module, name, tensor.detach())
    copy = deepcopy(model)
    return lincon.fully_shard(copy, _blocks(copy), mesh=mesh)


def _kept_tensors(model: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """(module, attribute, tensor) of every tensor that is a plain attribute.

    Modules whose weights torch has pruned keep these so: they make them in every forward.
    """
    return [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and name not in module._buffers
    ]


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The parts that are called and have parameters; those in lists one by one."""
    for part in model.children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from _blocks(part)
        elif type(part).forward is not nn.Module.forward and any(True for _ in part.parameters()):
            yield part


def fill(model: nn.Module, copy: nn.Module) -> None:
    """Give a model the values of its sharded copy. A collective."""
    agree(copy)
    model.load_state_dict({name: gathered(tensor) for name, tensor in copy.state_dict().items()})
    pairs = zip(_kept_tensors(model), _kept_tensors(copy), strict=True)
    for (module, name, old), (_, _, new) in pairs:
        setattr(module, name, new.detach().to(old.device))


def agree(copy: nn.Module) -> None:
    """Give every process the buffers of the first, such as statistics of norms. A collective.

    DDP does the same.
    """
    for buffer in copy.buffers():
        dist.broadcast(buffer, 0)
