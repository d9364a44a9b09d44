"""Attaching a constraint to a model: `constrain`. Everything is checked and computed first, then bound at once."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.binding import bind, unbind, unwrapped, warn_of_holders
from lincon.attaching.constraint import Constraint, Group, with_scales
from lincon.attaching.ledger import Ledger
from lincon.attaching.targets import FEW, Dof, Scope, Target, Where, group, select, spread
from lincon.counter import key
from lincon.errors import LinconError, LinconWarning, TargetError
from lincon.generator import Generator, as_seed
from lincon.maps.registry import get
from lincon.maps.scaled import Scaled

_GROUP_STREAM, _FREE_STREAM = 201, 202
Recipe = str | type[Generator] | Generator | Callable[[int, int, int], Generator]
Make = Callable[[Tensor, int | None, int], Generator]
"""(weights, dof, seed) -> generator; the weights, (rows,), are those of the model."""


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
    gradient: str = "euclidean",
    **options: Any,
) -> Constraint:
    """Generate weights of ``model`` from free vectors, in place: Ŵ = G W, or W₀ + G W.

    The model keeps its class and gains one Parameter a group (`free`, or `free_<group>`), in place of the weights.

    Args:
        model: any module; it becomes the owner of the free vectors.
        generator: a registered name, a Generator class, a Generator, or a callable (rows, dof, seed) -> Generator.
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
        gradient: "euclidean" trains W by its own gradient; "gram" divides that by diag(GᵀG), so that steps on W move
            Ŵ as projected gradient descent does; "mean" is the scaler of STABLE-RPS (see `Group.divisor`).
        options: of the generator, e.g. ``tile=1``.

    Returns:
        The Constraint, with ``dof``, ``rows``, ``ledger``, ``project(weights)``.

    Raises:
        TargetError, DofError, UnknownGeneratorError: and the model is as it was.
    """
    if unwrapped(model) is not model:
        raise TargetError(
            f"The model is in a {type(model).__name__} already: constrain it first, then wrap it."
        )
    if offset and init == "project":
        raise LinconError(
            "offset=True starts at the weights as they are, init='project' at a fit to them: give one."
        )
    _check_choice("scale", scale, ("match", "isometric", None))
    _check_choice("init", init, ("random", "project"))
    _check_choice("gradient", gradient, ("euclidean", "gram", "mean"))
    _check_choice("materialize", materialize, ("model", "layer"))
    seed = as_seed(seed)
    chosen, constant = select(model, where)
    make = _factory(generator, options)
    taken: set[str] = set()
    plans = []
    with torch.device(
        "cpu"
    ):  # whatever the default device is: G is made of integers on the CPU first
        for number, (label, members, budget) in enumerate(grouped := group(chosen, scope, dof)):
            mixed = key(seed, _GROUP_STREAM, number) >> 1 if len(grouped) > 1 else seed
            plans.append(
                _plan(model, label, members, make, budget, mixed, scale, offset, init, taken)
            )
        values = {name: value for plan in plans for name, value in plan.values.items()}
        groups = [replace(plan.group, gradient=gradient) for plan in plans]
        for made in groups:  # here, where it may still be refused
            made.divisor(values[made.free])
        constraint = bind(model, groups, chosen, values)
        constraint.materialize = materialize
        if any(plan.fit for plan in plans):
            _fit(constraint, {t.name: t.tensor for t in chosen})
    _remark(chosen, constant)
    warn_of_holders([t.tensor for t in chosen])
    return constraint


def _fit(constraint: Constraint, weights: dict[str, nn.Parameter]) -> None:
    """Start at the fit to the weights that were there; if they cannot be fitted, the model gets them back."""
    try:
        constraint.project(weights)
    except BaseException:
        unbind(constraint, weights)
        raise


def _remark(chosen: list[Target], constant: list[str]) -> None:
    """Warn of what will not be as in the unconstrained model."""
    if constant:
        names = ", ".join(constant)
        _warn(
            f"Left out, since initialised to a constant: {names} (name them in where= to include them)."
        )
    if padded := [
        t.name for t in chosen for m, _ in t.places if getattr(m, "padding_idx", None) is not None
    ]:
        _warn(f"The padding row of {', '.join(padded)} is generated too and will not stay zero.")


def _warn(message: str) -> None:
    warnings.warn(message, LinconWarning, stacklevel=4)


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
    make: Make,
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
    generator = make(_flat(members), dof, seed)
    if not isinstance(generator, Generator):
        raise LinconError(
            f"The callable made a {type(generator).__name__}, not a lincon.Generator."
        )
    if (generator.rows, generator.dof) != (ledger.rows, dof if dof is not None else generator.dof):
        raise LinconError(
            f"{generator!r} was made for {ledger.rows} rows and {dof} dof; it has others."
        )
    devices = tuple(
        None if t.tensor.device == first.device else str(t.tensor.device) for t in members
    )
    plan = Group(
        free=_free_name("free" if not label else f"free_{label.replace('.', '_')}", model, taken),
        generator=generator,
        ledger=ledger,
        isometric=scale == "isometric",
        devices=devices if any(devices) else (),
    )
    own_units = generator.starts_from_weights
    plan, free = _initial(
        plan, members, None if own_units else scale, seed, zero=offset or own_units
    )
    values = {plan.free: free.to(first.device, first.dtype)}
    origin = _origin(generator, members, offset)
    if origin is not None:
        plan = replace(
            plan, origin=_free_name(plan.free.replace("free", "origin", 1), model, taken)
        )
        values[str(plan.origin)] = origin.to(first.device, first.dtype)
    return _Plan(plan, values, (init == "project" or own_units) and not offset)


def _initial(
    plan: Group, members: list[Target], scale: str | None, seed: int, zero: bool
) -> tuple[Group, Tensor]:
    """The first free vector, float64, and the group with its multipliers.

    The standard deviation that each tensor would have from W of standard deviation 1 (as drawn; in expectation for
    tensors of few values) is matched against the one its own initialisation had; the multiplier of the smallest is 1.
    (Tensors a hundred times smaller than all together, as a class token of 1e-6, get a multiplier below 1 instead.)
    """
    draw = torch.Generator().manual_seed(key(seed, _FREE_STREAM) >> 1)
    free = torch.randn(plan.generator.dof, generator=draw, dtype=torch.float64, device="cpu")
    if scale is None and zero:
        return plan, free * 0
    meta = next((t.name for t in members if t.tensor.is_meta), None)
    if meta and scale == "match":
        raise TargetError(
            f"{meta!r} is on the meta device: it has no values to match. Materialise it, or give scale=None."
        )
    drawn = Scaled(plan.generator, plan.ledger.sizes, plan.ledger.scales, plan.isometric)
    wanted = [spread(t.tensor) for t in members]
    if odd := next((t.name for t, w in zip(members, wanted, strict=True) if not isfinite(w)), None):
        raise TargetError(
            f"Weights for {odd!r} hold a value that is not finite; nothing can be matched to them."
        )
    parts = drawn.unpack(free).split(plan.ledger.sizes)
    made = [
        drawn.energy(entry.start, entry.stop) ** 0.5 if entry.numel < FEW else spread(part)
        for entry, part in zip(plan.ledger, parts, strict=True)
    ]
    known = [0 if t.tensor.is_meta else t.tensor.numel() for t in members]
    overall = _overall(wanted, known) / (_overall(made, known) or 1.0) or 1.0
    if scale == "match":
        ratios = [w / m if w > 0 and m > 0 else overall for w, m in zip(wanted, made, strict=True)]
        overall = min(r for r in ratios if r >= min(overall / 100, max(ratios)))
        plan = with_scales(plan, [r / overall for r in ratios])
    return plan, free * (0.0 if zero else overall)


def _overall(spreads: list[float], sizes: list[int]) -> float:
    return float(
        (sum(s * s * n for s, n in zip(spreads, sizes, strict=True)) / max(1, sum(sizes))) ** 0.5
    )


def _origin(generator: Generator, members: list[Target], offset: bool) -> Tensor | None:
    own = generator.offset()
    if not offset:
        return own
    if own is not None:
        raise LinconError(f"{generator.name}: it has an offset of its own; leave offset out.")
    return _flat(members)


def _flat(members: list[Target]) -> Tensor:
    """The tensors laid one after the other, (rows,), on the device of the first (on meta if one of them is)."""
    if any(t.tensor.is_meta for t in members):
        return torch.empty(sum(t.tensor.numel() for t in members), device="meta")
    return torch.cat([t.tensor.detach().reshape(-1).to(members[0].tensor.device) for t in members])


def _factory(generator: Recipe, options: dict[str, Any]) -> Make:
    if isinstance(generator, Generator):
        made = generator
        return lambda weights, dof, seed: made
    cls = get(generator) if isinstance(generator, str) else generator
    if isinstance(cls, type):
        return lambda weights, dof, seed: _construct(cls, weights, dof, seed, options)
    if options:
        raise LinconError(f"Options {sorted(options)} were given with a callable; bind them in it.")
    return lambda weights, dof, seed: cls(len(weights), dof, seed)  # type: ignore[arg-type]


def _construct(
    cls: type[Generator], weights: Tensor, dof: int | None, seed: int, options: dict[str, Any]
) -> Generator:
    known = list(signature(cls).parameters)[3:]
    if unknown := [name for name in options if name not in known]:
        raise LinconError(
            f"{cls.name}: no option {unknown[0]!r}; there are: {', '.join(known) or 'none'}."
        )
    width = cls.default_dof(len(weights), options) if dof is None else dof
    return cls.for_weights(weights, width, seed, **options)  # type: ignore[arg-type]


def _free_name(wanted: str, model: nn.Module, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken or hasattr(model, name):
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def _check_choice(option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise LinconError(f"{option}={value!r}; give one of {', '.join(map(repr, allowed))}.")
