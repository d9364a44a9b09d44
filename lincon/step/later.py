"""A generated weight that the backward of a convolution asks for, and that is there for half of it.

torch's convolution takes its weight for both gradients, but only that of its input needs the numbers. So they are made
one after the other, by torch's own kernel, and the weight is let go of in between: it does not exist beside its own
gradient, which at the last layers of a network is when most memory is in use. (A weight with more bytes than the free
vector stays: for the second half the kernel is handed the free vector's memory in its shape.)
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

_kernel: Callable[..., tuple[Tensor | None, ...]] = torch.ops.aten.convolution_backward.default


def asked_by_convolution() -> bool:
    """Whether the backward that runs is at a convolution. Any other node, a user's own, may need a weight's address."""
    node = torch._C._current_autograd_node()
    return node is not None and node.name() == "ConvolutionBackward0"


class Later(Tensor):
    """Stands for what ``make()`` will give: a contiguous tensor of this size and type, on the device of ``room``.

    ``room`` is a tensor that is alive anyhow: where torch's kernel takes a weight for its shape alone, it gets that
    memory, whose values do not matter.
    """

    make: Callable[[], Tensor]
    room: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls, size: torch.Size, dtype: torch.dtype, make: Callable[[], Tensor], room: Tensor
    ) -> "Later":
        later = Tensor._make_wrapper_subclass(cls, size, dtype=dtype, device=room.device)
        later.make, later.room = make, room
        return later

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:  # autograd's own, on the way to the operation
            (later,) = args
            return Later(later.size(), later.dtype, later.make, later.room)
        if (
            func is torch.ops.aten.convolution_backward.default
            and (shape := _shape_alone(args[2])) is not None
        ):
            return _one_after_the_other(shape, *args)
        return func(*tree_map_only(Later, lambda later: later.make(), args), **(kwargs or {}))


def _shape_alone(weight: Tensor) -> Tensor | None:
    """A tensor of this size and type, of which nothing else is true; None where there is no room for it."""
    if not isinstance(weight, Later):  # then it is the input that is generated
        return None
    room, size = weight.room.detach(), weight.numel() * weight.dtype.itemsize
    aligned = room.storage_offset() * room.itemsize % weight.itemsize == 0
    if size > room.nbytes or not room.is_contiguous() or not aligned:
        return None
    return room.view(torch.uint8)[:size].view(weight.dtype).view(weight.size())


def _one_after_the_other(
    shape: Tensor, grad: Tensor, images: Tensor, weight: Later, *rest: Any
) -> tuple[Tensor | None, ...]:
    """The gradients of images, weight and bias, those that are wanted."""
    *settings, (of_images, *of_others) = rest
    first: Tensor | None = None
    if of_images:
        first = _kernel(grad, images, weight.make(), *settings, [True, False, False])[0]
    if not any(of_others):
        return first, None, None
    return first, *_kernel(grad, images, shape, *settings, [False, *of_others])[1:]
