"""The tensors of a module that may be constrained. Nothing here changes a model."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lincon.attaching.constraint import constraints
from lincon.errors import TargetError
from lincon.step.generated import generated_in

CONSTANT = "initialised to a constant"
PARAMETRIZED = "parametrized or pruned already"
NOT_REAL = "not real"
"""Reasons against constraining a tensor (see `reason_against`)."""


@dataclass(frozen=True)
class Target:
    """A tensor to constrain.

    Attributes:
        names: dotted names in the model. The first is its own, the others are tied to it.
        places: (module, attribute) of all places that hold it.
        tensor: the Parameter.
    """

    names: tuple[str, ...]
    places: tuple[tuple[nn.Module, str], ...]
    tensor: nn.Parameter

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


def targets(model: nn.Module) -> list[Target]:
    """Every Parameter of the model with its names and places, in the order of `named_parameters`.

    Free vectors of existing constraints are left out.
    """
    free = {id(tensor) for constraint in constraints(model) for tensor in constraint.free.values()}
    tensors: dict[int, nn.Parameter] = {}
    names: dict[int, list[str]] = {}
    places: dict[int, dict[tuple[int, str], tuple[nn.Module, str]]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in module._parameters.items():
            if tensor is None or id(tensor) in free:
                continue
            tensors[id(tensor)] = tensor
            full = f"{prefix}.{attribute}" if prefix else attribute
            names.setdefault(id(tensor), []).append(full)
            place = id(module), attribute  # a module with two names is one place
            places.setdefault(id(tensor), {})[place] = module, attribute
    return [
        Target(tuple(names[number]), tuple(places[number].values()), tensor)
        for number, tensor in tensors.items()
    ]


def generated_names(model: nn.Module) -> set[str]:
    """The names of tensors that are generated already."""
    names = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        names |= {
            f"{prefix}.{attribute}" if prefix else attribute for attribute in generated_in(module)
        }
    return names


def reason_against(target: Target) -> str:
    """Why a tensor is not among those that are constrained by default, or "" if it is.

    A lazy tensor is: its shape is not known, and `check_target` says so.
    """
    tensor = target.tensor
    if is_lazy(tensor):
        return ""
    if not tensor.is_floating_point():
        return NOT_REAL
    if not tensor.requires_grad:
        return "frozen"
    if tensor.dim() < 2:
        return "of fewer than two dimensions"
    if any(_is_parametrized(module, attribute) for module, attribute in target.places):
        return PARAMETRIZED
    return CONSTANT if is_constant(tensor) else ""


def is_constant(tensor: Tensor) -> bool:
    """Whether all values are equal, as far as they are known."""
    if is_lazy(tensor) or tensor.is_meta:
        return False
    values = tensor.detach().reshape(-1)
    return not len(values) or bool((values == values[0]).all())


def check_target(target: Target) -> None:
    """Raise TargetError unless a tensor can be constrained."""
    name, tensor = target.name, target.tensor
    if is_lazy(tensor):
        raise TargetError(
            f"{name!r} belongs to a lazy module that has no shape yet: "
            "run the model once, then constrain it."
        )
    if not tensor.is_floating_point():
        raise TargetError(
            f"{name!r} is {tensor.dtype}; only floating-point tensors can be constrained."
        )
    if tensor.numel() == 0:
        raise TargetError(f"{name!r} is empty; leave it out with where=...")
    for module, attribute in target.places:
        _check_place(name, module, attribute)


def check_one_dtype(group: list[Target]) -> None:
    """Raise TargetError unless the tensors of a group have one dtype."""
    first = group[0]
    for target in group:
        if target.tensor.dtype != first.tensor.dtype:
            raise TargetError(
                f"{first.name!r} is {first.tensor.dtype} and {target.name!r} is not; one free "
                "vector has one dtype: give them one, or constrain them in two calls (where=...) "
                "or in two scopes."
            )


def _check_place(name: str, module: nn.Module, attribute: str) -> None:
    kind = type(module).__name__
    if _is_parametrized(module, attribute):
        raise TargetError(
            f"{name!r} is parametrized or pruned already (weight norm, spectral norm, ...): "
            "undo that first (torch.nn.utils.parametrize.remove_parametrizations), "
            "or leave it out with where=..."
        )
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise TargetError(
            f"{name!r} belongs to a {kind}, which iterates over its members; "
            "move the parameter to a module of its own, or leave it out with where=..."
        )
    if hasattr(nn.ModuleDict, attribute):
        raise TargetError(
            f"{name!r}: torch cannot parametrize a tensor of this name; rename it, or leave it out."
        )
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        _check_embedding(name, module)


def _is_parametrized(module: nn.Module, attribute: str) -> bool:
    """Whether a parametrization, or an older hook (weight norm, pruning), reads this Parameter."""
    if isinstance(module, parametrize.ParametrizationList):
        return True
    for hook in module._forward_pre_hooks.values():
        name = getattr(hook, "name", getattr(hook, "_tensor_name", None))
        if isinstance(name, str) and attribute in (f"{name}_g", f"{name}_v", f"{name}_orig"):
            return True
    return False


def _check_embedding(name: str, module: nn.Embedding | nn.EmbeddingBag) -> None:
    if module.sparse or module.max_norm is not None:
        option = "sparse=True" if module.sparse else "max_norm"
        raise TargetError(
            f"{name!r} belongs to an embedding with {option}, which writes to its weight or gives "
            "sparse gradients: make it without, or leave it out with where=..."
        )
