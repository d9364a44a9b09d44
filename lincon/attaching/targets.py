"""Finding and selecting the tensors of a module to constrain. Nothing here changes a model."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lincon.attaching.constraint import constraints
from lincon.errors import TargetError
from lincon.processes.shards import check_unsharded
from lincon.step.generated import generated_in

Where = str | Iterable[str] | Callable[[str, nn.Parameter], bool] | None
"""Names or glob patterns, a predicate (name, parameter) -> bool, or None for the default."""


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


def select(model: nn.Module, where: Where) -> tuple[list[Target], list[str]]:
    """The targets that ``where`` names, and the names of constant ones that the default leaves out.

    Raises:
        TargetError: nothing was chosen, or a chosen tensor cannot be constrained.
    """
    check_unsharded(model)
    everything = targets(model)
    constant: list[str] = []
    if where is None:
        chosen, constant = _by_default(everything)
    elif callable(where):
        chosen = [t for t in everything if any(where(name, t.tensor) for name in t.names)]
    else:
        patterns = [where] if isinstance(where, str) else list(where)
        chosen = _by_pattern(model, everything, patterns)
    if not chosen:
        why = _why_nothing(model, everything, constant)
        raise TargetError(f"There is nothing to constrain: {why}")
    for target in chosen:
        _check(target)
    return chosen, constant


def _by_default(everything: list[Target]) -> tuple[list[Target], list[str]]:
    """All weights that are not constant, and the names of the constant ones."""
    weights = [target for target in everything if _is_weight(target.tensor)]
    constant = [target.name for target in weights if _is_constant(target.tensor)]
    return [target for target in weights if target.name not in constant], constant


def _by_pattern(model: nn.Module, everything: list[Target], patterns: list[str]) -> list[Target]:
    chosen: set[str] = set()
    for pattern in patterns:
        matching = [t for t in everything if any(fnmatchcase(n, pattern) for n in t.names)]
        if not matching:
            raise _no_match(model, everything, pattern)
        chosen |= {target.name for target in matching}
    return [target for target in everything if target.name in chosen]


def _no_match(model: nn.Module, everything: list[Target], pattern: str) -> TargetError:
    for name in sorted(generated_names(model)):
        if fnmatchcase(name, pattern):
            return TargetError(f"{name!r} is constrained already; lincon.merge(model) undoes that.")
    names = ", ".join(t.name for t in everything[:8]) + (", ..." if len(everything) > 8 else "")
    return TargetError(f"where={pattern!r} matches no parameter; there are: {names or 'none'}.")


def _why_nothing(model: nn.Module, everything: list[Target], constant: list[str]) -> str:
    why = (
        f"of {len(everything)} parameters none was chosen "
        "(the default is those of two or more dimensions)."
    )
    if generated := sorted(generated_names(model)):
        why = (
            f"{len(generated)} tensors are constrained already ({generated[0]!r}, ...); "
            "lincon.merge(model) undoes that."
        )
    if constant:
        why += f" Left out, since initialised to a constant: {', '.join(constant)}."
    return why


def _is_weight(tensor: Tensor) -> bool:
    """Whether it is trainable and real and has two or more dimensions, or is lazy."""
    if is_lazy(tensor):
        return True
    return tensor.requires_grad and tensor.is_floating_point() and tensor.dim() >= 2


def _is_constant(tensor: Tensor) -> bool:
    if is_lazy(tensor) or tensor.is_meta:
        return False
    values = tensor.detach().reshape(-1)
    return not len(values) or bool((values == values[0]).all())


def _check(target: Target) -> None:
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


def _check_place(name: str, module: nn.Module, attribute: str) -> None:
    kind = type(module).__name__
    if _is_hooked(module, attribute) or isinstance(module, parametrize.ParametrizationList):
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


def _is_hooked(module: nn.Module, attribute: str) -> bool:
    """Whether one of torch's older hooks (weight norm, pruning) reads this Parameter."""
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
