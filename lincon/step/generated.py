"""The parametrization that takes the place of a weight, built on torch.nn.utils.parametrize.

When it is registered, `right_inverse` returns `()`. Torch then keeps no original: nothing of the
old tensor remains, and `state_dict` has no entry for it (torch does not document this; a test pins
it). From then on the constraint provides the tensor whenever it is read, and writing to it raises
TargetError.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lincon.errors import TargetError
from lincon.step.weight import REMEDY


class Source(Protocol):
    """The part of a constraint that provides weights."""

    owner: nn.Module

    def read(self, key: tuple[int, int]) -> Tensor:
        """The tensor of entry ``key`` = (group, index)."""

    def freeze(self, part: nn.Module, requires_grad: bool) -> None:
        """Freeze the weights that a part of the owner reads, or let them train again."""


class Generated(nn.Module):
    """Reads one entry of a constraint's ledger.

    Args:
        source: the constraint.
        key: (group, index) of the entry.
        name: the name of the tensor in the constraint's owner.
    """

    def __init__(self, source: Source, key: tuple[int, int], name: str) -> None:
        super().__init__()
        self.source, self.key, self.name = source, key, name
        self.sealed = False

    def forward(self) -> Tensor:
        return self.source.read(self.key)

    def right_inverse(self, value: Tensor) -> tuple[()]:
        if self.sealed and not self._is_same(value):
            raise TargetError(f"{self.name!r} cannot be assigned. {REMEDY}")
        return ()

    def _is_same(self, value: Tensor) -> bool:
        """Whether the values are those that are generated: tying again what is tied changes nothing."""
        with torch.no_grad():
            weight = self.forward()
            return value.shape == weight.shape and torch.equal(value.to(weight), weight)


def install(module: nn.Module, attribute: str, generated: Generated) -> None:
    """Put ``generated`` in place of ``module.<attribute>``."""
    order = tuple(module._parameters)
    stored = module._modules.get("parametrizations")
    if isinstance(stored, nn.ModuleDict):
        # Deep copies may share the class, so the module gets a new one.
        module.__class__ = type(module).__bases__[0]
        _dress(module, tuple(stored))
    parametrize.register_parametrization(module, attribute, generated, unsafe=True)
    generated.sealed = True
    if "_lincon_order" not in module.__dict__:
        # A Module's attributes are tensors and modules for type checkers.
        module._lincon_order = order  # type: ignore[assignment]
    _finish(module)


def uninstall(module: nn.Module, attribute: str, parameter: nn.Parameter) -> None:
    """Put an ordinary Parameter back in its old place among the module's parameters.

    Torch's class is not edited, because deep copies of the module may share it.
    """
    parametrizations = module._modules["parametrizations"]
    assert isinstance(parametrizations, nn.ModuleDict)
    del parametrizations[attribute]
    module.__class__ = type(module).__bases__[0]
    module._parameters[attribute] = parameter
    if len(parametrizations):
        _dress(module, tuple(parametrizations))
        return
    del module._modules["parametrizations"]
    order = module.__dict__.pop("_lincon_order")
    rest = [name for name in module._parameters if name not in order]
    old = dict(module._parameters)
    module._parameters.clear()
    module._parameters.update({name: old[name] for name in (*order, *rest) if name in old})
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


def _dress(module: nn.Module, attributes: tuple[str, ...]) -> None:
    """Give a module of the original class a new parametrized class with these properties."""
    parametrize._inject_new_class(module)
    for attribute in attributes:
        parametrize._inject_property(module, attribute)
    _finish(module)


def _finish(module: nn.Module) -> None:
    """Add what torch's parametrized class lacks: pickling, and fresh weights for RNNs."""
    cls = type(module)
    # The class is torch's, made for this module alone.
    cls.__reduce_ex__ = _reduce  # type: ignore[method-assign, assignment]
    cls.requires_grad_ = _requires_grad_  # type: ignore[method-assign, assignment]
    if issubclass(cls, nn.RNNBase):
        module.__dict__.pop("_flat_weights", None)
        fresh = property(_flat_weights, lambda self, value: None)
        setattr(cls, "_flat_weights", fresh)  # noqa: B010


def _flat_weights(self: nn.RNNBase) -> list[Tensor | None]:
    """The weights an RNN runs on, read at every call: none is stale or keeps a graph alive."""
    return [getattr(self, name, None) for name in self._flat_weights_names]


def _requires_grad_(self: nn.Module, requires_grad: bool = True) -> nn.Module:
    """Freeze or unfreeze a layer with its generated weights, which are not its Parameters."""
    sources = {
        id(each.source): each.source for each in self.modules() if isinstance(each, Generated)
    }
    for source in sources.values():
        source.freeze(self, requires_grad)
    original: type[nn.Module] = type(self).__bases__[0]
    return original.requires_grad_(self, requires_grad)


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """Pickle the original class and the parametrized names; torch's own class refuses."""
    original = type(self).__bases__[0]
    # It is a ModuleDict, whose keys are names.
    attributes: tuple[str, ...] = tuple(self._modules["parametrizations"])  # type: ignore[arg-type]
    # object's own, where a class has none: the stubs have it without an argument.
    return _restore, (original, attributes), original.__getstate__(self)  # type: ignore[call-arg]


def _restore(cls: type[nn.Module], attributes: tuple[str, ...]) -> nn.Module:
    module = cls.__new__(cls)
    _dress(module, attributes)
    return module
