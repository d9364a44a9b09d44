"""Channels of a residual network: which must go together, what each costs and is worth, and the network without some.

A channel that residual blocks add to is one in all layers that write it and read it (Aflalo et al.
2020, knapsack pruning with inner distillation): the stem or shortcut and every block's last
convolution of a stage. A channel between the two convolutions of a block is its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import lincon
from lincon import LinconError
from lincon.exporting import merged_copy
from lincon.files.contents import Contents
from lincon.slicing import Kept, slice_tensors
from lincon.tasks.classification.models.resnet import BasicBlock, ResNet

Masks = Mapping[str, Tensor]
"""By name of a group, which of its channels are kept: bool."""


@dataclass(frozen=True)
class Channels:
    """Channels that are kept or dropped one by one, each in all of these layers at once.

    ``written``: names of the convolutions whose outputs they are, ``norms`` of the norms between,
    ``read`` of the layers whose inputs they are.
    """

    written: tuple[str, ...]
    norms: tuple[str, ...]
    read: tuple[str, ...]


def groups(model: nn.Module) -> dict[str, Channels]:
    """The channels of a residual network by name, every convolution's outputs in just one group.

    Raises LinconError for another model.
    """
    if not isinstance(model, ResNet):
        raise LinconError(
            f"{type(model).__name__} is no residual network of basic blocks, whose channels can "
            "be pruned."
        )
    found: dict[str, Channels] = {}
    stream = Channels(("stem.0",), ("stem.1",), ())
    for number, stage in enumerate(model.body):
        for index, block in enumerate(_blocks(stage)):
            path = f"body.{number}.{index}"
            found[path] = Channels((f"{path}.conv1",), (f"{path}.norm1",), (f"{path}.conv2",))
            reads = (*stream.read, f"{path}.conv1")
            if isinstance(block.shortcut, nn.Identity):
                stream = Channels(
                    (*stream.written, f"{path}.conv2"), (*stream.norms, f"{path}.norm2"), reads
                )
            else:
                found[f"stream.{number - 1}"] = Channels(
                    stream.written, stream.norms, (*reads, f"{path}.shortcut.0")
                )
                written, norms = (
                    (f"{path}.conv2", f"{path}.shortcut.0"),
                    (f"{path}.norm2", f"{path}.shortcut.1"),
                )
                stream = Channels(written, norms, ())
    found[f"stream.{len(model.body) - 1}"] = Channels(
        stream.written, stream.norms, (*stream.read, "head")
    )
    return found


def _blocks(stage: nn.Module) -> list[BasicBlock]:
    return [block for block in stage.children() if isinstance(block, BasicBlock)]


def macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-adds of one image, by torch's counter. ``images``: (n, channels, height, width)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images[:1])
    return int(counter.get_total_flops()) // 2


def costs(model: ResNet, images: Tensor) -> dict[str, float]:
    """Multiply-adds of one image that one channel of each group costs, all other channels being there."""
    sizes: dict[str, int] = {}

    def record(name: str) -> "torch.utils.hooks.RemovableHandle":
        def hook(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
            sizes[name] = output.shape[-1] * output.shape[-2] if output.dim() == 4 else 1

        return model.get_submodule(name).register_forward_hook(hook)

    every = groups(model)
    names = {name for group in every.values() for name in (*group.written, *group.read)}
    handles = [record(name) for name in names]
    with torch.no_grad():
        model(images[:1])
    for handle in handles:
        handle.remove()
    return {
        name: sum(_per_channel(model.get_submodule(n), sizes[n], 0) for n in group.written)
        for name, group in every.items()
    }


def _per_channel(layer: nn.Module, places: int, dimension: int) -> float:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.numel() / weight.shape[dimension] * places


def importance(model: ResNet, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """What each channel is worth, (channels,) by group: the sum of |weight x gradient| over the weights that write it.

    The gradient of the cross-entropy is summed over all ``batches`` (images and labels) first: a
    bound of the first-order change of the loss without the channel (Taylor importance, as in the
    authors' code).
    """
    plain = merged_copy(model)
    for parameter in plain.parameters():
        parameter.requires_grad_(True)
    for images, labels in batches:
        nn.functional.cross_entropy(plain(images), labels, reduction="sum").backward()
    return {
        name: sum((_worth(plain.get_submodule(n)) for n in group.written), torch.zeros(()))
        for name, group in groups(model).items()
    }


def _worth(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter) and weight.grad is not None
    return (weight.detach() * weight.grad).abs().flatten(1).sum(1).double()


def slim(model: ResNet, masks: Masks) -> None:
    """Take channels away, in place. Rows of G go with them, and free numbers that no row reads any more."""
    kept: dict[str, list[Tensor | None]] = {}
    for name, group in groups(model).items():
        for layer in group.written:
            kept.setdefault(f"{layer}.weight", [None, None])[0] = masks[name]
        for layer in group.read:
            kept.setdefault(f"{layer}.weight", [None, None])[1] = masks[name]
        for norm in group.norms:
            kept |= {
                f"{norm}.{of}": [masks[name]]
                for of in ("weight", "bias", "running_mean", "running_var")
            }
    tensors: dict[str, Kept] = dict(kept)
    slice_tensors(model, tensors)
    settle_sizes(model)


def reshape(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give a model, whose values do not matter, tensors of the shapes that a file of a slimmer one has."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        path, _, attribute = name.rpartition(".")
        wanted = shapes.get(name, tuple(tensor.shape))
        if wanted != tuple(tensor.shape):
            fresh = tensor.detach().new_zeros(wanted)
            if isinstance(tensor, nn.Parameter):
                model.get_submodule(path)._parameters[attribute] = nn.Parameter(fresh)
            else:
                model.get_submodule(path)._buffers[attribute] = fresh
    settle_sizes(model)


def settle_sizes(model: nn.Module) -> None:
    """Have the layers say of their sizes what their weights are."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = module.weight.shape[:2]
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = len(module.weight)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape


def shapes_in(contents: Contents) -> dict[str, tuple[int, ...]]:
    """Of all tensors of a file, those that are generated included."""
    ledgers = (lincon.Ledger.from_json(group["ledger"]) for group in contents.groups)
    generated = {
        name: entry.shape for ledger in ledgers for entry in ledger for name in entry.names
    }
    return {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()} | generated
