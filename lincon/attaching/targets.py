"""Which tensors of a module are to be constrained: discovery, selection, grouping. Nothing here changes a model."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Integral, Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from lincon.attaching.constraint import constraints
from lincon.errors import DofError, TargetError
from lincon.processes.shards import check_unsharded
from lincon.step.generated import Generated

Where = str | Iterable[str] | Callable[[str, nn.Parameter], bool] | None
Scope = str | Iterable[str] | Mapping[str, int | float] | Callable[[str], str]
Dof = int | float | None

FEW = 32
"""Values from which a standard deviation is worth more than a root mean square."""


@dataclass(frozen=True)
class Target:
    """A tensor to be constrained: its names (tied ones follow), the places that hold it, the Parameter."""

    names: tuple[str, ...]
    places: tuple[tuple[nn.Module, str], ...]
    tensor: nn.Parameter

    @property
    def name(self) -> str:
        return self.names[0]


def targets(model: nn.Module) -> list[Target]:
    """Every Parameter of the model, in the order of `named_parameters`, with all its names and places.

    Free vectors of constraints that are there already are not among them.
    """
    free = {id(tensor) for constraint in constraints(model) for tensor in constraint.free.values()}
    found: dict[
        int, tuple[list[str], dict[tuple[int, str], tuple[nn.Module, str]], nn.Parameter]
    ] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in module._parameters.items():
            if tensor is not None and id(tensor) not in free:
                names, places, _ = found.setdefault(id(tensor), ([], {}, tensor))
                names.append(f"{prefix}.{attribute}" if prefix else attribute)
                places.setdefault((id(module), attribute), (module, attribute))
    return [
        Target(tuple(names), tuple(places.values()), tensor)
        for names, places, tensor in found.values()
    ]


def generated_names(model: nn.Module) -> set[str]:
    """Names of the tensors that are generated already."""
    names = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Generated):
            names.add(prefix.replace("parametrizations.", "").rsplit(".", 1)[0])
    return names


def select(model: nn.Module, where: Where) -> tuple[list[Target], list[str]]:
    """The targets that ``where`` names, and the names of constant ones that the default leaves out.

    Raises TargetError, naming the tensor and the remedy, for whatever cannot be constrained.
    """
    check_unsharded(model)
    everything = targets(model)
    constant: list[str] = []
    if where is None:
        chosen = [t for t in everything if is_lazy(t.tensor) or _is_weight(t.tensor)]
        constant = [t.name for t in chosen if _is_constant(t.tensor)]
        chosen = [t for t in chosen if t.name not in constant]
    elif callable(where):
        chosen = [t for t in everything if any(where(name, t.tensor) for name in t.names)]
    else:
        chosen = _by_pattern(model, everything, [where] if isinstance(where, str) else list(where))
    if not chosen:
        left = (
            f" Left out, since initialised to a constant: {', '.join(constant)}."
            if constant
            else ""
        )
        raise TargetError(f"There is nothing to constrain: {_why_nothing(model, everything)}{left}")
    for target in chosen:
        _check(target)
    return chosen, constant


def _by_pattern(model: nn.Module, everything: list[Target], patterns: list[str]) -> list[Target]:
    chosen: dict[str, Target] = {}
    for pattern in patterns:
        matched = [t for t in everything if any(fnmatchcase(name, pattern) for name in t.names)]
        if not matched:
            taken = [name for name in generated_names(model) if fnmatchcase(name, pattern)]
            if taken:
                raise TargetError(
                    f"{taken[0]!r} is constrained already; lincon.merge(model) undoes that."
                )
            names = ", ".join(t.name for t in everything[:8]) + (
                ", ..." if len(everything) > 8 else ""
            )
            raise TargetError(
                f"where={pattern!r} matches no parameter; there are: {names or 'none'}."
            )
        chosen.update({t.name: t for t in matched})
    return [t for t in everything if t.name in chosen]


def _why_nothing(model: nn.Module, everything: list[Target]) -> str:
    if taken := generated_names(model):
        first = sorted(taken)[0]
        return f"{len(taken)} tensors are constrained already ({first!r}, ...); lincon.merge(model) undoes that."
    return f"of {len(everything)} parameters none was chosen (the default is those of two or more dimensions)."


def _is_weight(tensor: Tensor) -> bool:
    """What the default chooses: trainable, real, of two or more dimensions."""
    return tensor.requires_grad and tensor.is_floating_point() and tensor.dim() >= 2


def _is_constant(tensor: Tensor) -> bool:
    if is_lazy(tensor) or tensor.is_meta:
        return False
    return (
        bool((tensor.detach() == tensor.detach().reshape(-1)[0]).all()) if tensor.numel() else True
    )


def _check(target: Target) -> None:
    name, tensor = target.name, target.tensor
    if is_lazy(tensor):
        raise TargetError(
            f"{name!r} belongs to a lazy module that has no shape yet: run the model once, then constrain."
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
    hooks = [
        getattr(h, "name", getattr(h, "_tensor_name", None))
        for h in module._forward_pre_hooks.values()
    ]
    hooked = any(
        isinstance(name, str) and attribute in (f"{name}_g", f"{name}_v", f"{name}_orig")
        for name in hooks
    )
    if hooked or isinstance(module, parametrize.ParametrizationList):
        raise TargetError(
            f"{name!r} is parametrized or pruned already (weight norm, spectral norm, ...): undo that first "
            "(torch.nn.utils.parametrize.remove_parametrizations), or leave it out with where=..."
        )
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise TargetError(
            f"{name!r} belongs to a {type(module).__name__}, which iterates over what it holds; move the parameter "
            "to a module of its own, or leave it out with where=..."
        )
    if hasattr(nn.ModuleDict, attribute):
        raise TargetError(
            f"{name!r}: torch cannot parametrize a tensor of this name; rename it, or leave it out."
        )
    if isinstance(module, nn.Embedding | nn.EmbeddingBag) and (
        module.sparse or module.max_norm is not None
    ):
        raise TargetError(
            f"{name!r} belongs to an embedding with {'sparse=True' if module.sparse else 'max_norm'}, which writes to "
            "its weight or gives sparse gradients: make it without, or leave it out with where=..."
        )


def group(chosen: list[Target], scope: Scope, dof: Dof) -> list[tuple[str, list[Target], int]]:
    """(label, targets, dof) of each group that ``scope`` makes. The label is "" for the whole model."""
    if isinstance(scope, Mapping) and dof is not None:
        raise DofError(
            "dof= and a scope that maps prefixes to dof exclude each other; leave dof out."
        )
    labels = {t.name: _label(scope, t.name) for t in chosen}
    if not (isinstance(scope, str) or callable(scope)) and (
        idle := set(scope) - set(labels.values())
    ):
        raise TargetError(
            f"scope names {sorted(idle)}, under which there is no tensor to constrain."
        )
    groups: dict[str, list[Target]] = {}
    for target in chosen:
        groups.setdefault(labels[target.name], []).append(target)
    rows = {label: sum(t.tensor.numel() for t in members) for label, members in groups.items()}
    budgets = _budgets(scope, dof, rows)
    return [(label, members, budgets[label]) for label, members in groups.items()]


def _label(scope: Scope, name: str) -> str:
    if isinstance(scope, str):
        if scope not in ("model", "tensor"):
            raise TargetError(
                f"scope={scope!r}; give 'model', 'tensor', a list of name prefixes, a mapping prefix -> dof, "
                "or a function name -> group."
            )
        return "" if scope == "model" else name
    if callable(scope):
        return str(scope(name))
    matching = [prefix for prefix in scope if name == prefix or name.startswith(prefix + ".")]
    if not matching:
        raise TargetError(
            f"{name!r} is under none of the scopes {list(scope)}; add a prefix, or choose by where=..."
        )
    return max(matching, key=len)


def _budgets(scope: Scope, dof: Dof, rows: dict[str, int]) -> dict[str, Any]:
    if isinstance(scope, Mapping):
        return {label: count(scope[label], rows[label]) for label in rows}
    if isinstance(dof, float):
        return {label: count(dof, n) for label, n in rows.items()}
    if len(rows) == 1 or dof is None:
        return {label: dof if dof is None else count(dof, n) for label, n in rows.items()}
    return _share(count(dof, sum(rows.values())), rows)


def count(dof: Dof, rows: int, name: str = "dof") -> int:
    """A number of free parameters, from an integer or a fraction of ``rows``. ``name``: what an error calls it.

    >>> count(0.5, 100), count(64, 100), count(0.001, 100)
    (50, 64, 1)
    """
    if isinstance(dof, Number) and not isinstance(dof, bool | int | float):  # NumPy's
        dof = int(dof) if isinstance(dof, Integral) else float(dof)
    if isinstance(dof, bool) or not isinstance(dof, int | float):
        raise DofError(f"{name}={dof!r}; give an integer or a fraction between 0 and 1.")
    if not math.isfinite(dof) or dof <= 0:
        raise DofError(f"{name}={dof!r}; it must be positive and finite.")
    if isinstance(dof, int):
        return dof
    if dof > 1:
        raise DofError(f"{name}={dof!r} is a fraction above 1; give an integer for a number.")
    return max(1, round(dof * rows))


def _share(total: int, rows: dict[str, int]) -> dict[str, int]:
    """Divide a budget in proportion to rows, by largest remainder, at least one each."""
    if total < len(rows):
        raise DofError(
            f"dof={total} cannot be divided among {len(rows)} groups; give at least {len(rows)}."
        )
    whole = sum(rows.values())
    spare = total - len(rows)
    shares = {label: 1 + spare * n // whole for label, n in rows.items()}
    left = total - sum(shares.values())
    for label in sorted(rows, key=lambda label: -(spare * rows[label] % whole))[:left]:
        shares[label] += 1
    return shares


def spread(tensor: Tensor) -> float:
    """Standard deviation of a tensor's values, in float64; of fewer than `FEW` the root mean square; 0 on meta."""
    if tensor.is_meta:
        return 0.0
    values = tensor.detach().double()
    if values.numel() < FEW:
        return float(values.square().mean().sqrt())
    return float(torch.std(values, correction=0))
