"""Generated weights as users see them: tensors that refuse what would not last.

A write, a hook, an attribute or a freeze would change a tensor that is thrown away, and nothing else.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from lincon.errors import TargetError

REMEDY = (
    "It is generated from the free vector: fit that with constraint.project({...}), or "
    "lincon.merge(model) first."
)

_LASTING = {
    "register_hook": "put the hook on the free vector, or lincon.merge(model) first",
    "register_post_accumulate_grad_hook": "put the hook on the free vector",
    "retain_grad": "the gradient is that of the free vector; torch.autograd.grad gives a weight's",
    "requires_grad_": "freeze the free vector, or leave the tensor out with where=...",
}
"""Methods that are to last beyond the forward, each with what to do instead."""


def refuse_write(name: str) -> TargetError:
    """The refusal of a write by a function of torch of this name."""
    return TargetError(f"A generated weight cannot be written to ({name}). {REMEDY}")


def refuse_mark(name: str) -> TargetError:
    """The refusal of a hook, an attribute or a freeze."""
    remedy = _LASTING.get(name, "keep it elsewhere; for a mask see lincon.prune(level='weights')")
    return TargetError(
        "A generated weight is made again from the free vector and would lose it "
        f"({name}): {remedy}."
    )


class Weight(Tensor):
    """A generated weight that is read outside of its model's forward.

    Its views refuse writes too; other results are plain tensors.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in _LASTING and isinstance(args[0], Weight):
            raise refuse_mark(name)
        if any(isinstance(tensor, Weight) for tensor in _written(name, args, kwargs)):
            raise refuse_write(name)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            storages = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Weight)}
            return tree_map_only(Tensor, lambda x: _as_seen(x, storages), result)

    def __setattr__(self, name: str, value: Any) -> None:
        raise refuse_write(name) if name == "data" else refuse_mark(name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


def outside_forward(weight: Tensor) -> Tensor:
    """The same tensor, as one that is read outside of its model's forward."""
    config = sys.modules.get(
        "torch._dynamo.config"
    )  # nothing compiles without it, and it loads long
    if config is not None:
        # Traced, a function of a subclass never ends (pytorch/pytorch#175841): it runs as it is.
        config.nontraceable_tensor_subclasses.add(Weight)
    return weight.as_subclass(Weight)


class WeightInForward(Tensor):
    """A generated weight that is read inside of its model's forward.

    It is as fast as a Parameter: only the methods of this class are its own, and functions of torch
    treat it as a plain tensor. So a function that writes to it is noticed when the forward ends, by
    the tensor's counter of writes. A hook on it is called in the backward of this forward, as tools
    that count or trace want it.

    Attributes:
        _kept: where the forward keeps weights, so that they are not made again without their hooks.
    """

    _kept: "Kept"

    @property
    def data(self) -> Tensor:
        """The values; unlike torch's, they share the counter of writes."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        raise refuse_write("data")

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Any:
        """Have ``hook`` called with the gradient in the backward of this forward."""
        self._kept.add(self)
        register: Callable[..., Any] = super().register_hook
        return register(hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this forward in `grad`."""
        self._kept.add(self)
        super().retain_grad()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.detach().clone()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):  # torch's own, such as the hooks of this forward
            super().__setattr__(name, value)
        elif name != "grad" or value is not None:
            raise refuse_write(name) if name == "data" else refuse_mark(name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)


setattr(WeightInForward, "__torch_function__", torch._C._disabled_torch_function_impl)  # noqa: B010


class Kept:
    """Weights that a forward keeps to its end. Kept for longer, they would keep its whole graph."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.is_open = True

    def add(self, weight: Tensor) -> None:
        """Keep a weight, if the forward has not ended."""
        if self.is_open:
            self.weights.append(weight)

    def close(self) -> None:
        """The forward has ended."""
        self.is_open = False
        self.weights.clear()


def in_forward(weight: Tensor, kept: Kept) -> Tensor:
    """The same tensor, as one that is read inside of a forward, which keeps what is in ``kept``."""
    vars(weight)["_kept"] = kept
    weight.__class__ = WeightInForward
    return weight


def asks_for_gradient(free: Tensor) -> bool:
    """Whether the weights of a forward without gradients ask for one, as Parameters do there.

    Torch chooses operations by it: a `linear` of a weight that asks for none is 1.5 times slower
    where its input is transposed, and rounds differently. Under autocast such a weight would be kept
    for as long as the context, and operations get a lower copy that asks for none anyhow.
    """
    return free.requires_grad and not torch.is_autocast_enabled(free.device.type)


def ask_for_gradient(weight: Tensor) -> None:
    """Have a weight without a graph ask for a gradient, and refuse one that comes."""
    weight.requires_grad_()
    weight.register_hook(_refuse_gradient)


def _refuse_gradient(gradient: Tensor) -> None:
    raise TargetError(
        "A generated weight that was read without gradients (torch.no_grad) has got one, which "
        "would be lost: read it where gradients are enabled, or detach() it."
    )


class _Refusing:
    """A method that refuses to be called."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise refuse_mark(self.name) if self.name in _LASTING else refuse_write(self.name)


def _as_seen(result: Tensor, storages: set[int]) -> Tensor:
    """Views of a weight are refused writes too; anything else is a plain tensor."""
    if type(result) not in (Tensor, Weight) or result.layout != torch.strided:
        return result
    return result.as_subclass(Weight if result.untyped_storage().data_ptr() in storages else Tensor)


def _written(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """What a function of torch of this name writes to."""
    # torch.nn.init hands its tensor over by name.
    first = args[:1] or tuple(kwargs.values())
    written: list[Any] = []
    for argument in (kwargs.get("out"), *(first if _writes(name) else ())):
        written += argument if isinstance(argument, list | tuple) else [argument]
    return written


_OPERATORS = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "div", "mod", "pow"),
    *("and", "or", "xor", "lshift", "rshift"),
)
_WRITING = {"__set__", "__setitem__", *(f"__i{operator}__" for operator in _OPERATORS)}


def _writes(name: str) -> bool:
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in _WRITING


for _name in dir(Tensor):
    if callable(getattr(Tensor, _name)) and _writes(_name):
        setattr(WeightInForward, _name, _Refusing(_name))
