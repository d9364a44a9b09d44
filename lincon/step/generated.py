"""The class of a module with generated weights: a subclass that has a property for each of them.

There is one such class for each original class and set of names. So equal blocks have one class,
and what torch.compile makes of one of them serves them all.

Torch's tools for parametrizations edit the class of a module. As soon as one of them asks for
`module.parametrizations`, the module gets a class of its own, as torch would have made it.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import wraps
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lincon.errors import TargetError, one_line
from lincon.step.layout import Key
from lincon.step.refusals import refusing_methods
from lincon.step.traced import Spot
from lincon.step.weight import REMEDY


class Source(Protocol):
    """The part of a constraint that provides weights."""

    owner: nn.Module

    def read(self, key: Key) -> Tensor:
        """The tensor of entry ``key``."""

    def freeze(self, part: nn.Module, requires_grad: bool) -> None:
        """Freeze the weights that a part of the owner reads, or let them train again."""

    def rest(self) -> None:
        """Let go of the buffers that a step leaves for the next one."""


class Generated(nn.ModuleList):
    """Reads one entry of a constraint's ledger.

    For torch's tools it is a list of parametrizations: those that are registered on top of it.

    Args:
        source: the constraint.
        key: (group, index) of the entry.
        name: the name of the tensor in the constraint's owner.
        spot: where it lies, for a compiler.
    """

    is_tensor, unsafe = True, False

    def __init__(self, source: Source, key: Key, name: str, spot: Spot) -> None:
        super().__init__()
        self.source, self.key, self.name, self.spot = source, key, name, spot

    def forward(self) -> Tensor:
        weight = self.read()
        for step in self:
            weight = step(weight)
        return weight

    def read(self) -> Tensor:
        """The weight, without the parametrizations on top."""
        if not torch.compiler.is_dynamo_compiling():
            return self.source.read(self.key)
        # The number of an entry would be a constant of the graph, which then served no other block.
        return self.spot.weight()

    def right_inverse(self, value: Any) -> None:
        """Refuse an assignment. Tying again what is tied changes nothing."""
        if not isinstance(value, Tensor) or not self._is_same(value):
            raise TargetError(f"{self.name!r} cannot be assigned. {REMEDY}")

    def _is_same(self, value: Tensor) -> bool:
        with torch.no_grad():
            weight = self.forward()
            return value.shape == weight.shape and torch.equal(value.to(weight), weight)

    def append(self, module: nn.Module) -> Self:
        """Put a parametrization on top, if it makes one tensor of the weight alone.

        `torch.nn.utils.parametrize` calls this. A step that keeps tensors of its own in the place of
        the weight, as those of weight norm do, has none here.
        """
        with torch.no_grad():
            weight = self.forward()
            try:
                made = deepcopy(module)(weight)  # spectral norm iterates at each call
            except Exception as error:  # of the parametrization, which can fail in any way
                raise self._unfit(module, one_line(error)) from error
        if not isinstance(made, Tensor) or made.shape != weight.shape:
            raise self._unfit(module, f"it makes no tensor of shape {tuple(weight.shape)}")
        return super().append(module)

    def _unfit(self, module: nn.Module, why: str) -> TargetError:
        return TargetError(
            f"{type(module).__name__} cannot be registered on {self.name!r}, which is generated "
            f"({why}): lincon.merge(model) first, or leave the tensor out with where=..."
        )

    def __getattr__(self, name: str) -> Any:
        if name == "original":  # torch asks for it to remove parametrizations
            raise NoOriginalError(
                f"{self.name!r} is generated, with no tensor of its own beneath. "
                "lincon.merge(model) makes it a Parameter and keeps what was registered on top."
            )
        return super().__getattr__(name)


class NoOriginalError(TargetError, AttributeError):
    """A generated weight was asked for the tensor beneath its parametrizations."""


def generated_in(module: nn.Module) -> dict[str, Generated]:
    """The generated weights of a module by attribute, without its submodules."""
    if (own := _edited(module)) is not None:
        return {name: each for name, each in own.items() if isinstance(each, Generated)}
    stored: dict[str, Generated] = vars(module).get(_PLACE, {})
    return stored


def install(module: nn.Module, attribute: str, generated: Generated) -> None:
    """Put ``generated`` in place of ``module.<attribute>``."""
    own = _edited(module)
    if own is None:  # first, because the class may refuse
        _dress(module, {**generated_in(module), attribute: generated})
    vars(module).setdefault(_ORDER, tuple(module._parameters))
    del module._parameters[attribute]
    if own is not None:
        own[attribute] = generated
        _edit(module, own)
    if isinstance(module, nn.RNNBase):
        vars(module).pop("_flat_weights", None)


def uninstall(module: nn.Module, attribute: str, parameter: nn.Parameter) -> None:
    """Put an ordinary Parameter back in its old place among the module's parameters."""
    if (own := _edited(module)) is not None:
        on_top = generated_in(module)[attribute]
        del own[attribute]
        if len(on_top):
            own[attribute] = _parametrized(parameter, on_top)
        _edit(module, own)
    else:
        rest = {name: each for name, each in generated_in(module).items() if name != attribute}
        _dress(module, rest)
    if own is None or attribute not in own:
        module._parameters[attribute] = parameter
    if not generated_in(module):
        _restore_order(module)


def _parametrized(parameter: nn.Parameter, steps: Iterable[nn.Module]) -> nn.Module:
    """Parametrizations of a Parameter as torch keeps them.

    Registered anew, they would start from their right inverse and not from the Parameter.
    """
    first, *others = steps
    stack = parametrize.ParametrizationList([nn.Identity()], parameter, unsafe=True)
    stack[0] = first
    return stack.extend(others)


def _restore_order(module: nn.Module) -> None:
    order = vars(module).pop(_ORDER)
    old = dict(module._parameters)
    names = *order, *(name for name in old if name not in order)
    module._parameters.clear()
    module._parameters.update({name: old[name] for name in names if name in old})
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


# The class that equal modules share.

_PLACE, _ORDER = "_lincon_generated", "_lincon_order"
"""Attributes of a module: its generated weights, and the names of its parameters in order."""

_shared: "WeakValueDictionary[tuple[type[nn.Module], tuple[str, ...]], type[nn.Module]]"
_shared = WeakValueDictionary()


def _dress(module: nn.Module, generated: Mapping[str, Generated]) -> None:
    """Give a module these generated weights, and the class that reads them."""
    original = type(module).__bases__[0] if _PLACE in vars(module) else type(module)
    if generated:
        dressed = _dressed(original, tuple(generated))
        vars(module)[_PLACE] = dict(generated)
        module.__class__ = dressed
    else:
        del vars(module)[_PLACE]
        module.__class__ = original


def _dressed(original: type[nn.Module], attributes: tuple[str, ...]) -> type[nn.Module]:
    """The subclass in which these attributes are generated; the same one at each call."""
    dressed = _shared.get((original, attributes))
    if dressed is None:
        members = {"parametrizations": property(_as_torch_has_it), **_further(original)}
        members |= {attribute: _property(attribute) for attribute in attributes}
        # type(layer)(...) makes an ordinary module, as it did before.
        members["__new__"] = lambda cls, *args, **kwargs: original(*args, **kwargs)
        try:
            dressed = type(original.__name__, (original,), members)
        except Exception as error:  # its own __init_subclass__ can fail in any way
            raise TargetError(
                f"{original.__name__} allows no subclass, which generated weights need "
                f"({one_line(error)}): leave its tensors out with where=..."
            ) from error
        dressed.__module__, dressed.__qualname__ = original.__module__, original.__qualname__
        _shared[original, attributes] = dressed
    return dressed


def _property(attribute: str) -> property:
    def read(self: nn.Module) -> Tensor:
        weight: Tensor = self.__dict__[_PLACE][attribute].read()
        return weight

    def write(self: nn.Module, value: Tensor) -> None:
        self.__dict__[_PLACE][attribute].right_inverse(value)

    return property(read, write)


def _further(original: type[nn.Module]) -> dict[str, Any]:
    """What a class with generated weights needs besides: pickling, and fresh weights for RNNs.

    And it refuses what cannot be done with such weights.
    """
    refusing = refusing_methods(original, lambda module, name: name in generated_in(module))
    members: dict[str, Any] = {
        "__reduce_ex__": _reduce,
        "requires_grad_": _freezing(original),
        "train": _training(original),
        **refusing,
    }
    if issubclass(original, nn.RNNBase):
        members["_flat_weights"] = property(_flat_weights, lambda self, value: None)
    return members


def _flat_weights(self: nn.RNNBase) -> list[Tensor | None]:
    """The weights an RNN runs on, read at every call: none is stale or keeps a graph alive."""
    return [getattr(self, name, None) for name in self._flat_weights_names]


def _training(original: type[nn.Module]) -> Callable[[nn.Module, bool], nn.Module]:
    """`nn.Module.train` of a class with generated weights: after `eval` no step may follow."""

    @wraps(original.train)
    def train(self: nn.Module, mode: bool = True) -> nn.Module:
        if not mode:
            for each in generated_in(self).values():
                each.source.rest()
        return original.train(self, mode)

    return train


def _freezing(original: type[nn.Module]) -> Callable[[nn.Module, bool], nn.Module]:
    """Freeze or unfreeze a layer with its generated weights, which are not its Parameters."""

    @wraps(original.requires_grad_)
    def requires_grad_(self: nn.Module, requires_grad: bool = True) -> nn.Module:
        weights = [each for module in self.modules() for each in generated_in(module).values()]
        sources = {id(each.source): each.source for each in weights}
        for source in sources.values():
            source.freeze(self, requires_grad)
        return original.requires_grad_(self, requires_grad)

    return requires_grad_


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """Pickle the original class and the names of the attributes that it lacks."""
    original = type(self).__bases__[0]
    own = _edited(self)
    attributes = tuple(generated_in(self) if own is None else own)
    # object's own, where a class has none: the stubs have it without an argument.
    state = original.__getstate__(self)  # type: ignore[call-arg]
    return _restore, (original, attributes, own is not None), state


def _restore(cls: type[nn.Module], attributes: tuple[str, ...], is_edited: bool) -> nn.Module:
    module = cls.__new__(cls)
    if not is_edited:
        module.__class__ = _dressed(cls, attributes)
        return module
    _inject(module, attributes)
    _extend(module)
    return module


# The class of a module that torch's tools look at.


def _edited(module: nn.Module) -> nn.ModuleDict | None:
    """The parametrizations of a module whose class is its own, by attribute; else None."""
    own = module._modules.get("parametrizations")
    return own if isinstance(own, nn.ModuleDict) else None


def _as_torch_has_it(self: nn.Module) -> nn.ModuleDict:
    """What torch.nn.utils.parametrize finds, once the module has a class that it may edit."""
    own = nn.ModuleDict(dict(self.__dict__[_PLACE]))
    if type(self) in _shared.values():  # not one that torch.distributed has made of it
        _dress(self, {})
        self._modules["parametrizations"] = own
        _inject(self, own)
        _extend(self)
    return own


def _edit(module: nn.Module, own: nn.ModuleDict) -> None:
    """Give a module a class with a property for each of its parametrizations.

    It is a new one, because deep copies of the module may share the old one.
    """
    module.__class__ = type(module).__bases__[0]
    if not len(own):
        del module._modules["parametrizations"]
        return
    _inject(module, own)
    if generated_in(module):
        _extend(module)


def _inject(module: nn.Module, attributes: Iterable[str]) -> None:
    parametrize._inject_new_class(module)
    if "__deepcopy__" in vars(type(module)):
        # It shares the class with the copy, and torch's tools then edit that of both.
        del type(module).__deepcopy__  # type: ignore[attr-defined]
    for attribute in attributes:
        parametrize._inject_property(module, attribute)


def _extend(module: nn.Module) -> None:
    """Add what torch's class lacks for generated weights."""
    original = type(module).__bases__[0]
    for name, member in _further(original).items():
        setattr(type(module), name, member)
