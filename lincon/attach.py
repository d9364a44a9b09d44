"""Attaching a constraint to a model, and taking it off again: `constrain`, `merge`, `constraints`."""

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from lincon.constraint import Constraint, Group, with_scales
from lincon.counter import key
from lincon.errors import LinconError, LinconWarning, TargetError
from lincon.generated import Generated, install, uninstall
from lincon.generator import Generator
from lincon.ledger import Ledger
from lincon.registry import get
from lincon.scaled import Scaled
from lincon.tensors import Dof, Scope, Target, Where, group, select, spread

_GROUP_STREAM, _FREE_STREAM = 201, 202
Recipe = str | type[Generator] | Callable[[int, int, int], Generator]


def constrain(
    model: nn.Module,
    generator: Recipe,
    *,
    dof: Dof = None,
    seed: int = 0,
    where: Where = None,
    scope: Scope = "model",
    scale: str | None = "match",
    offset: bool = False,
    init: str = "random",
    materialize: str = "model",
    **options: Any,
) -> Constraint:
    """Generate weights of ``model`` from free vectors, in place: Ŵ = G W, or W₀ + G W.

    The model keeps its class and gains one Parameter a group (`free`, or `free_<group>`), in place of the weights.

    Args:
        model: any module; it becomes the owner of the free vectors.
        generator: a registered name, a Generator class, or a callable (rows, dof, seed) -> Generator.
        dof: free parameters: an integer in all, or a fraction of the rows (of each group). None where the
            generator says it itself (`matrix`, `nullspace`, `identity`) or ``scope`` does.
        seed: of G and of the first W.
        where: names or glob patterns, or a predicate (name, parameter) -> bool. The default is every trainable
            tensor of two or more dimensions that is not initialised to a constant.
        scope: what shares a free vector: "model", "tensor", a list of name prefixes, a mapping prefix -> dof,
            or a function name -> group.
        scale: "match" multiplies each tensor so that its standard deviation starts at the one its own
            initialisation had, with W drawn so that every multiplier is at least 1; "isometric" gives G columns of
            unit norm; None leaves G alone. With the last two, W is drawn so that the standard deviation over all
            tensors is kept.
        offset: keep the present weights as W₀ (frozen) and start at W = 0, for fine-tuning.
        init: "random", or "project" for the least-squares fit to the present weights; the relative residual is
            then in ``constraint.residual``. Generators whose G is in the weights' own units (`identity`,
            `nullspace`) always start at the fit, with scale 1.
        materialize: "model" generates all weights once a forward; "layer" one at a time, freed after use and
            generated again for the backward, for less memory. Can be changed later: ``constraint.materialize``.
        options: of the generator, e.g. ``tile=1``.

    Returns:
        The Constraint, with ``dof``, ``rows``, ``ledger``, ``project(weights)``.

    Raises:
        TargetError, DofError, UnknownGeneratorError: and the model is as it was.
    """
    _check_choice("scale", scale, ("match", "isometric", None))
    _check_choice("init", init, ("random", "project"))
    _check_choice("materialize", materialize, ("model", "layer"))
    chosen, constant = select(model, where)
    make = _factory(generator, options)
    taken = {name for name, _ in model.named_parameters(recurse=False)}
    plans = []
    for number, (label, members, budget) in enumerate(grouped := group(chosen, scope, dof)):
        mixed = key(seed, _GROUP_STREAM, number) >> 1 if len(grouped) > 1 else seed
        plans.append(_plan(model, label, members, make, budget, mixed, scale, offset, init, taken))
    if constant:
        warnings.warn(
            f"Left out, since initialised to a constant: {', '.join(constant)} (name them in where= to include them).",
            LinconWarning,
            stacklevel=2,
        )
    constraint = attach(
        model, [plan.group for plan in plans], chosen, {k: v for p in plans for k, v in p.values.items()}
    )
    constraint.materialize = materialize
    if any(plan.fit for plan in plans):
        constraint.project({t.name: t.tensor for t in chosen})
    _warn_of_optimizers([t.tensor for t in chosen])
    return constraint


@dataclass
class _Plan:
    """A group that will be attached: its parameters' values, and whether W is to be fitted to the weights."""

    group: Group
    values: dict[str, Tensor]
    fit: bool


def _plan(
    model: nn.Module,
    label: str,
    members: list[Target],
    make: Callable[[int, int | None, int], Generator],
    dof: int | None,
    seed: int,
    scale: str | None,
    offset: bool,
    init: str,
    taken: set[str],
) -> _Plan:
    first = members[0].tensor
    if odd := next((t.name for t in members if t.tensor.dtype != first.dtype), None):
        raise TargetError(
            f"{members[0].name!r} is {first.dtype} and {odd!r} is not; one free vector has one dtype: "
            "constrain them in two calls (where=...) or in two scopes."
        )
    ledger = Ledger.of([(t.names, tuple(t.tensor.shape)) for t in members])
    generator = make(ledger.rows, dof, seed)
    if (generator.rows, generator.dof) != (ledger.rows, dof if dof is not None else generator.dof):
        raise LinconError(f"{generator!r} was made for {ledger.rows} rows and {dof} dof; it has others.")
    devices = tuple(None if t.tensor.device == first.device else str(t.tensor.device) for t in members)
    plan = Group(
        free=_free_name("free" if not label else f"free_{label.replace('.', '_')}", model, taken),
        generator=generator,
        ledger=ledger,
        isometric=scale == "isometric",
        devices=devices if any(devices) else (),
    )
    own_units = generator.starts_from_weights
    plan, free = _initial(plan, members, None if own_units else scale, seed, zero=offset or own_units)
    values = {plan.free: free.to(first.device, first.dtype)}
    origin = _origin(generator, members, offset)
    if origin is not None:
        plan = replace(plan, origin=_free_name(plan.free.replace("free", "origin", 1), model, taken))
        values[str(plan.origin)] = origin.to(first.device, first.dtype)
    return _Plan(plan, values, (init == "project" or own_units) and not offset)


def _initial(plan: Group, members: list[Target], scale: str | None, seed: int, zero: bool) -> tuple[Group, Tensor]:
    """The first free vector, float64, and the group with its multipliers."""
    draw = torch.Generator().manual_seed(key(seed, _FREE_STREAM) >> 1)
    free = torch.randn(plan.generator.dof, generator=draw, dtype=torch.float64)
    if scale is None and zero:
        return plan, free * 0
    meta = next((t.name for t in members if t.tensor.is_meta), None)
    if meta and scale == "match":
        raise TargetError(
            f"{meta!r} is on the meta device: it has no values to match. Materialise it, or give scale=None."
        )
    unit = Scaled(plan.generator, plan.ledger.sizes, plan.ledger.scales, plan.isometric).unpack(free)
    pairs = list(zip(members, unit.split(plan.ledger.sizes), strict=True))
    wanted, made = [spread(t.tensor) for t, _ in pairs], [spread(part) for _, part in pairs]
    if scale == "match":
        ratios = [w / m if w > 0 and m > 0 else None for w, m in zip(wanted, made, strict=True)]
        smallest = min((r for r in ratios if r), default=1.0)
        plan = with_scales(plan, [r / smallest if r else 1.0 for r in ratios])
    else:
        sizes = [0 if t.tensor.is_meta else t.tensor.numel() for t in members]
        smallest = _overall(wanted, sizes) / (_overall(made, sizes) or 1.0) or 1.0
    return plan, free * (0.0 if zero else smallest)


def _overall(spreads: list[float], sizes: list[int]) -> float:
    return float((sum(s * s * n for s, n in zip(spreads, sizes, strict=True)) / max(1, sum(sizes))) ** 0.5)


def _origin(generator: Generator, members: list[Target], offset: bool) -> Tensor | None:
    own = generator.offset()
    if not offset:
        return own
    if own is not None:
        raise LinconError(f"{generator.name}: it has an offset of its own; leave offset out.")
    return torch.cat([t.tensor.detach().reshape(-1).to(members[0].tensor.device) for t in members])


def _factory(generator: Recipe, options: dict[str, Any]) -> Callable[[int, int | None, int], Generator]:
    cls = get(generator) if isinstance(generator, str) else generator
    if isinstance(cls, type):
        return lambda rows, dof, seed: _construct(cls, rows, dof, seed, options)
    if options:
        raise LinconError(f"Options {sorted(options)} were given with a callable; bind them in it.")
    return lambda rows, dof, seed: cls(rows, dof, seed)  # type: ignore[arg-type]


def _construct(cls: type[Generator], rows: int, dof: int | None, seed: int, options: dict[str, Any]) -> Generator:
    known = list(signature(cls).parameters)[3:]
    if unknown := [name for name in options if name not in known]:
        raise LinconError(f"{cls.name}: no option {unknown[0]!r}; there are: {', '.join(known) or 'none'}.")
    return cls(rows=rows, dof=cls.default_dof(rows, options) if dof is None else dof, seed=seed, **options)  # type: ignore[arg-type]


def attach(model: nn.Module, groups: list[Group], chosen: list[Target], values: dict[str, Tensor]) -> Constraint:
    """Bind groups to a model: register their parameters, put a `Generated` in each place, add the hooks.

    Everything has been checked by now. ``values``: of every free vector and origin.
    """
    by_name = {target.name: target for target in chosen}
    groups = [replace(g, lowered=all(_lowered(by_name[entry.name]) for entry in g.ledger)) for g in groups]
    constraint = Constraint(model, groups)
    frozen = {g.origin for g in groups}
    for name, value in values.items():
        model.register_parameter(name, nn.Parameter(value, requires_grad=name not in frozen))
    for number, plan in enumerate(groups):
        for index, entry in enumerate(plan.ledger):
            for module, attribute in by_name[entry.name].places:
                install(module, attribute, Generated(constraint.read, (number, index), entry.name))
    model.register_forward_pre_hook(constraint._open)
    model.register_forward_hook(constraint._close, always_call=True)
    model.register_load_state_dict_pre_hook(constraint._load)
    return constraint


_LOWERED = nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention


def _lowered(target: Target) -> bool:
    """Whether autocast casts this weight wherever it is used."""
    return all(isinstance(module, _LOWERED) for module, _ in target.places)


def constraints(model: nn.Module) -> list[Constraint]:
    """The constraints of a model and of the modules in it, each once.

    Warns if several of them are copies of one (a constrained layer was cloned, as nn.TransformerEncoder does): each
    has a free vector of its own then.
    """
    found: dict[int, Constraint] = {}
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, Constraint):
                found[id(owner)] = owner
    result = list(found.values())
    if len({c.copied_from for c in result}) < len(result):
        warnings.warn(
            "Several constraints here are copies of one, each with a free vector of its own: to share one, build the "
            "whole model first and constrain that.",
            LinconWarning,
            stacklevel=2,
        )
    return result


def merge(model: nn.Module) -> nn.Module:
    """Make a constrained model an ordinary one, in place: plain Parameters, plain keys, the same outputs bit for bit.

    Returns the model. Raises TargetError if there is nothing to merge.
    """
    found = constraints(model)
    if not found:
        raise TargetError(f"{type(model).__name__} has no constraint to merge.")
    for constraint in found:
        _merge(constraint)
    return model


def _merge(constraint: Constraint) -> None:
    owner = constraint.owner
    with torch.no_grad():
        weights = {name: weight.clone() for name, weight in constraint.weights().items()}
    by_key: dict[tuple[int, int], nn.Parameter] = {}
    for module in list(owner.modules()):
        for attribute, generated in _generated_in(module, constraint):
            entry = constraint.groups[generated.key[0]].ledger.entries[generated.key[1]]
            parameter = by_key.setdefault(generated.key, nn.Parameter(weights[entry.name]))
            uninstall(module, attribute, parameter)
    released = [owner._parameters[plan.free] for plan in constraint.groups]
    for plan in constraint.groups:
        for name in filter(None, (plan.free, plan.origin)):
            del owner._parameters[name]
    for hooks in (owner._forward_pre_hooks, owner._forward_hooks, owner._load_state_dict_pre_hooks):
        _remove_hooks(hooks, owner, constraint)
    _warn_of_optimizers([p for p in released if isinstance(p, nn.Parameter)])


def _generated_in(module: nn.Module, constraint: Constraint) -> list[tuple[str, Generated]]:
    lists = getattr(module, "parametrizations", None)
    if not isinstance(lists, nn.ModuleDict):
        return []
    pairs = [(attribute, steps[0]) for attribute, steps in lists.items()]  # type: ignore[index]
    return [(a, g) for a, g in pairs if isinstance(g, Generated) and g.read.__self__ is constraint]  # type: ignore[attr-defined]


def _remove_hooks(hooks: Any, owner: nn.Module, constraint: Constraint) -> None:
    for number, hook in list(hooks.items()):
        function = getattr(hook, "hook", hook)
        if getattr(function, "__self__", None) is constraint:
            del hooks[number]
            for companion in (owner._forward_hooks_always_called, owner._forward_hooks_with_kwargs):
                companion.pop(number, None)


def _free_name(wanted: str, model: nn.Module, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken or hasattr(model, name):
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def _check_choice(option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise LinconError(f"{option}={value!r}; give one of {', '.join(map(repr, allowed))}.")


def _warn_of_optimizers(replaced: list[nn.Parameter]) -> None:
    """Warn of optimizers that hold parameters which are no longer the model's."""
    gone = {id(p) for p in replaced}
    for thing in gc.get_objects():
        if not issubclass(type(thing), torch.optim.Optimizer):
            continue
        with suppress(AttributeError, KeyError):
            if any(id(p) in gone for g in thing.param_groups for p in g["params"]):
                warnings.warn(
                    f"The {type(thing).__name__} made before still holds the replaced weights and will train nothing "
                    "of them: make the optimizer again from model.parameters().",
                    LinconWarning,
                    stacklevel=3,
                )
