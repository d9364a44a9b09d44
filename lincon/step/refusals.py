"""What a module with generated weights refuses, each with what to do instead.

Torch's tools replace a weight by a Parameter of their own, or read it as if it were one. Methods that
they call on the way say so, before anything has changed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

from lincon.errors import TargetError
from lincon.step.weight import REMEDY, Weight, WeightInForward

COPY = "lincon.merge(copy.deepcopy(model)) makes an ordinary model of a copy"

TRACED = (
    "A constrained model cannot be traced, because the trace would hold weights that no longer "
    f"follow the free vector: {COPY}. (What torch.fx makes of a model can be constrained itself.)"
)


def check_untraced() -> None:
    """Raise TargetError inside of `torch.jit.trace`, ONNX's export by it, or `torch.fx`."""
    if not torch.compiler.is_compiling() and (_is_jit_tracing() or _is_fx_tracing()):
        raise TargetError(TRACED)


def _is_jit_tracing() -> bool:
    return torch._C._get_tracing_state() is not None


def _is_fx_tracing() -> bool:
    return is_fx_symbolic_tracing() and not is_recording_operators()


def is_recording_operators() -> bool:
    """Whether `make_fx` runs. It records operators, of which G is one, so that a trace is right."""
    key = torch._C._TorchDispatchModeKey.PROXY
    return torch._C._get_dispatch_mode(key) is not None


IsGenerated = Callable[[nn.Module, str], bool]


def refusing_methods(original: type[nn.Module], is_generated: IsGenerated) -> dict[str, Any]:
    """The methods of a class with generated weights that refuse, by name.

    Args:
        original: the class without generated weights.
        is_generated: whether the attribute of a module is a generated weight.
    """

    def register_parameter(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        _check_free(self, name, param)
        original.register_parameter(self, name, param)

    def register_buffer(self: nn.Module, name: str, tensor: Any, persistent: bool = True) -> None:
        _check_free(self, name, tensor)
        original.register_buffer(self, name, tensor, persistent)

    def _check_free(self: nn.Module, name: str, tensor: Any) -> None:
        if is_generated(self, name):
            raise TargetError(
                f"{name!r} of this {original.__name__} cannot be assigned a Parameter or a buffer, "
                f"as quantisation and pruning do. {REMEDY}"
            )
        if isinstance(tensor, Weight | WeightInForward):
            raise TargetError(
                f"A generated weight cannot be registered as {name!r}: lincon.prune prunes a "
                f"constrained model; for torch.nn.utils.prune, {COPY}."
            )

    def delete(self: nn.Module, name: str) -> None:
        if is_generated(self, name):
            raise TargetError(f"{name!r} is generated and cannot be deleted. {REMEDY}")
        original.__delattr__(self, name)

    def named_modules(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[Any]:
        check_untraced()  # torch.fx lists all modules first, and then looks into some alone
        listed: Iterator[Any] = original.named_modules(self, *args, **kwargs)
        return listed

    def prepare_scriptable(self: nn.Module) -> nn.Module:
        raise TargetError(f"A constrained model cannot be scripted: {COPY}.")

    def configuration(self: nn.Module) -> Any:
        try:
            return vars(self)["qconfig"]
        except KeyError:
            raise AttributeError("qconfig") from None

    def configure(self: nn.Module, value: Any) -> None:
        if value is not None:
            raise TargetError(
                "torch.ao.quantization replaces modules by others that hold a weight: "
                f"{COPY}; lincon.quantize quantises the free vector."
            )
        vars(self)["qconfig"] = value

    return {
        "register_parameter": register_parameter,
        "register_buffer": register_buffer,
        "__delattr__": delete,
        "named_modules": named_modules,
        "__prepare_scriptable__": prepare_scriptable,
        "qconfig": property(configuration, configure),
    }
