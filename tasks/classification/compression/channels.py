"""Channels of a residual network: their groups, costs and importance, and their removal.

All layers that write or read a channel of the residual stream lose it together: the stem or
shortcut, and every block's last convolution of a stage (Aflalo et al. 2020, knapsack pruning with
inner distillation). A channel between the two convolutions of a block can be removed alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lincon import LinconError
from lincon.exporting import merged_copy
from lincon.files.contents import Contents
from lincon.shapes import Bool, Float, Float64, Int64
from lincon.slicing import DimensionMasks, slice_tensors
from lincon.tasks.classification.models.resnet import BasicBlock, ResNet

Masks = Mapping[str, Bool[Tensor, " channels"]]
"""By name of a group, whether each of its channels is kept."""

NORM_TENSORS = "weight", "bias", "running_mean", "running_var"


@dataclass(frozen=True)
class Channels:
    """A group of channels; each is kept or dropped in all of these layers at once.

    ``written`` names the convolutions whose outputs they are, ``norms`` the norms between, ``read``
    the layers whose inputs they are.
    """

    written: tuple[str, ...]
    norms: tuple[str, ...]
    read: tuple[str, ...]

    def read_by(self, layer: str) -> "Channels":
        """The same channels, which ``layer`` reads as well."""
        return replace(self, read=(*self.read, layer))


def groups(model: nn.Module) -> dict[str, Channels]:
    """The groups of a residual network by name; a convolution's outputs are in one group only.

    Raises LinconError for any other model.
    """
    if not isinstance(model, ResNet):
        raise LinconError(
            f"{type(model).__name__} is no residual network of basic blocks, whose channels can "
            "be pruned."
        )
    channels: dict[str, Channels] = {}
    stream = Channels(("stem.0",), ("stem.1",), ())
    for number, stage in enumerate(model.body):
        for index, block in enumerate(_blocks(stage)):
            path = f"body.{number}.{index}"
            channels[path] = Channels((f"{path}.conv1",), (f"{path}.norm1",), (f"{path}.conv2",))
            stream = stream.read_by(f"{path}.conv1")
            written, norms = [f"{path}.conv2"], [f"{path}.norm2"]
            if isinstance(block.shortcut, nn.Identity):
                stream = Channels((*stream.written, *written), (*stream.norms, *norms), stream.read)
            else:
                # The shortcut reads the old stream and begins a new one.
                channels[f"stream.{number - 1}"] = stream.read_by(f"{path}.shortcut.0")
                written.append(f"{path}.shortcut.0")
                norms.append(f"{path}.shortcut.1")
                stream = Channels(tuple(written), tuple(norms), ())
    channels[f"stream.{len(model.body) - 1}"] = stream.read_by("head")
    return channels


def _blocks(stage: nn.Module) -> list[BasicBlock]:
    return [block for block in stage.children() if isinstance(block, BasicBlock)]


def macs(model: nn.Module, images: Float[Tensor, "n channels height width"]) -> int:
    """Multiply-adds of one image, by torch's counter.

    >>> macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 16, 16)) == 3 * 8 * 9 * 16 * 16
    True
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images[:1])
    return int(counter.get_total_flops()) // 2


def costs(model: ResNet, images: Float[Tensor, "n channels height width"]) -> dict[str, float]:
    """Multiply-adds of one image that one channel of each group costs.

    All other channels are taken to be present.
    """
    channels = groups(model)
    written = {layer for group in channels.values() for layer in group.written}
    places: dict[str, int] = {}  # pixels of each layer's output

    def record(layer: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        places[layer] = output.shape[-1] * output.shape[-2]

    handles = [
        model.get_submodule(layer).register_forward_hook(partial(record, layer))
        for layer in written
    ]
    with torch.no_grad():
        model(images[:1])
    for handle in handles:
        handle.remove()
    return {
        name: sum(_weights_a_channel(model, layer) * places[layer] for layer in group.written)
        for name, group in channels.items()
    }


def _weights_a_channel(model: nn.Module, layer: str) -> float:
    weight = model.get_parameter(f"{layer}.weight")
    return weight.numel() / len(weight)


def importance(
    model: ResNet,
    batches: Iterable[tuple[Float[Tensor, "_ channels height width"], Int64[Tensor, " _"]]],
) -> dict[str, Float64[Tensor, " _"]]:
    """The importance of each channel, by group: sums of |weight x gradient|.

    The sum runs over the weights that write the channel. The gradient of the cross-entropy is
    summed over all ``batches`` (images and labels) first. So the importance bounds the first-order
    change of the loss without the channel (Taylor importance, as in the authors' code).
    """
    plain = merged_copy(model)
    for parameter in plain.parameters():
        parameter.requires_grad_(True)
    for images, labels in batches:
        loss = nn.functional.cross_entropy(plain(images), labels, reduction="sum")
        torch.autograd.backward(loss)
    sums = {}
    for name, group in groups(model).items():
        layers = [_taylor(plain.get_parameter(f"{layer}.weight")) for layer in group.written]
        sums[name] = sum(layers[1:], layers[0])
    return sums


def _taylor(weight: nn.Parameter) -> Tensor:
    assert weight.grad is not None
    products = (weight.detach() * weight.grad).abs()
    by_output = rearrange(products, "outputs inputs height width -> outputs (inputs height width)")
    return by_output.sum(1).double()


def slim(model: ResNet, masks: Masks) -> None:
    """Remove channels, in place, with their rows of G and free numbers that no row reads then."""
    kept: dict[str, list[Tensor | None]] = {}
    for name, group in groups(model).items():
        for layer in group.written:
            kept.setdefault(f"{layer}.weight", [None, None])[0] = masks[name]
        for layer in group.read:
            kept.setdefault(f"{layer}.weight", [None, None])[1] = masks[name]
        for norm in group.norms:
            for tensor in NORM_TENSORS:
                kept[f"{norm}.{tensor}"] = [masks[name]]
    tensors: dict[str, DimensionMasks] = dict(kept)
    slice_tensors(model, tensors)
    settle_sizes(model)


def reshape(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give a model tensors of the shapes in a slimmer one's file; its values are lost."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        path, _, attribute = name.rpartition(".")
        shape = shapes.get(name, tuple(tensor.shape))
        if shape != tuple(tensor.shape):
            zeros = tensor.detach().new_zeros(shape)
            if isinstance(tensor, nn.Parameter):
                model.get_submodule(path)._parameters[attribute] = nn.Parameter(zeros)
            else:
                model.get_submodule(path)._buffers[attribute] = zeros
    settle_sizes(model)


def settle_sizes(model: nn.Module) -> None:
    """Set the sizes that layers report to those of their weights."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = module.weight.shape[:2]
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = len(module.weight)
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape


def shapes_in(contents: Contents) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a file, generated ones included."""
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors.items()}
    for group in contents.groups:
        for entry in group.ledger:
            shapes |= dict.fromkeys(entry.names, entry.shape)
    return shapes
