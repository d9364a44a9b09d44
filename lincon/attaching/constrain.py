"""Attaching a constraint to a model: `constrain`.

Everything is checked and computed before anything in the model changes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.binding import bind, free_name, unbind, unwrapped, warn_of_stale_optimizers
from lincon.attaching.constraint import Constraint
from lincon.attaching.cost import at_a_time, warn_of_cost
from lincon.attaching.dof import Dof
from lincon.attaching.group import Group
from lincon.attaching.initial import drawn, initial
from lincon.attaching.ledger import Ledger
from lincon.attaching.scopes import Scope, Share, shares
from lincon.attaching.targets import CONSTANT, PARAMETRIZED, Target
from lincon.attaching.where import Choice, Where, choose
from lincon.counter import key
from lincon.errors import LinconError, LinconWarning, TargetError
from lincon.generator import Generator, as_seed
from lincon.maps.registry import get, options_of

_GROUP_STREAM = 201
SHAPES = "shapes"
"""The option by which a generator asks for the shapes of the tensors that it makes."""

Source = str | type[Generator] | Generator | Callable[..., Generator]
Make = Callable[[Share, int], Generator]
"""(share, seed) -> the generator of the tensors of a share."""
Seeded = tuple[Generator, int]
"""A generator, and the seed of its first W."""


def constrain(
    model: nn.Module,
    generator: Source,
    *,
    dof: Dof = None,
    seed: int = 0,
    where: Where = None,
    scope: Scope = "model",
    scale: str | None = "match",
    offset: bool | str = False,
    init: str = "random",
    materialize: str = "model",
    gradient: str = "euclidean",
    **options: Any,
) -> Constraint:
    """Generate weights of ``model`` from free vectors, in place: Ŵ = G W, or W₀ + G W.

    The model keeps its class. One Parameter a group (`free`, or `free_<group>`) replaces the
    weights. If it raises an error, the model is unchanged.

    Args:
        model: any module. It becomes the owner of the free vectors.
        generator: a registered name, a Generator class, a Generator, or a callable (rows, dof,
            seed) -> Generator. A class or callable with an option ``shapes`` that has no value is
            given the shapes of the tensors, a list of lists.
        dof: the number of free parameters: an integer for all groups together, or a fraction of
            each group's rows. None if the generator (`matrix`, `nullspace`, `identity`) or
            ``scope`` determines it.
        seed: the seed of G and of the first W.
        where: modules ("enc"), glob patterns ("enc.*"), types of modules (nn.Linear), a list of
            these, or a predicate (name, parameter) -> bool: they choose from the default, which is
            every trainable tensor of two or more dimensions that is neither initialised to a
            constant nor parametrized. A name that is written out whole ("enc.norm.weight")
            overrides that.
        scope: the tensors that share a free vector: "model", "tensor", a list of name prefixes, a
            mapping prefix -> dof, or a function name -> group.
        scale: "match" multiplies each tensor so that it starts with the standard deviation of its
            own initialisation, and draws W so that every multiplier is at least 1. "isometric"
            gives G columns of unit norm. None leaves G alone. The last two draw W so that the
            standard deviation over all tensors stays the same.
        offset: True freezes the present weights as W₀ and starts at W = 0, for fine-tuning. "seed"
            starts at a W₀ that is drawn from the seed instead, at each tensor's own initial scale: no
            file needs to hold any of it.
        init: "random", or "project" for the least-squares fit to the present weights, whose
            relative residual is then in ``constraint.residual``. Generators whose G is in the
            weights' own units (`identity`, `nullspace`) always start at the fit, with scale 1.
        materialize: "model" generates all weights once a forward. "layer" saves memory: it
            generates one weight at a time, frees it after use, and generates it again for the
            backward. ``constraint.materialize`` can change this later.
        gradient: "euclidean" trains W by its own gradient. "gram" divides it by diag(GᵀG), so that
            steps on W move Ŵ as projected gradient descent does. "mean" is the scaler of
            STABLE-RPS (see `Group.divisor`).
        options: options of the generator, e.g. ``tile=1``.

    Returns:
        The Constraint, with ``dof``, ``rows``, ``ledger``, ``project(weights)``.

    Raises:
        TargetError: the chosen tensors cannot be constrained.
        DofError: the degrees of freedom are impossible.
        UnknownGeneratorError: no generator has this name.
        LinconError: an option is unknown or excludes another one.

    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> constraint = constrain(model, "ring", dof=0.25, seed=1)
    >>> constraint.dof, constraint.rows
    (40, 160)
    >>> sorted(name for name, _ in model.named_parameters())
    ['0.bias', '2.bias', 'free']
    """
    _check_choices(
        scale=scale, offset=offset, init=init, gradient=gradient, materialize=materialize
    )
    if unwrapped(model) is not model:
        raise TargetError(
            f"The model is in a {type(model).__name__} already: constrain it first, then wrap it."
        )
    if offset and init == "project":
        raise LinconError(
            f"offset={offset!r} starts at W = 0, init='project' at a fit to the present weights: "
            "give one of the two."
        )
    seed = as_seed(seed)
    choice = choose(model, where)
    chosen = choice.targets
    request = Request(model, _factory(generator, options), scale, offset, init, gradient)
    # G is computed from integers on the CPU, whatever the default device; W can be trained, whatever
    # the mode.
    with torch.device("cpu"), torch.inference_mode(False):
        of = shares(chosen, scope, dof)
        generators = request.generators(of, seed)
        warn_of_cost(_at_a_time(generators, of, materialize), stacklevel=2)
        plans = request.plans(of, generators)
        values = {name: value for plan in plans for name, value in plan.values.items()}
        groups = [plan.group for plan in plans]
        for group in groups:  # computed before binding, because it may raise an error
            group.divisor(values[group.free])
        constraint = bind(model, groups, chosen, values)
        constraint.materialize = materialize
        if any(plan.fit for plan in plans):
            fit(constraint, {target.name: target.tensor for target in chosen})
    _warn_of_differences(choice, plans)
    warn_of_stale_optimizers([target.tensor for target in chosen])
    return constraint


CHOICES: dict[str, tuple[str | bool | None, ...]] = {
    "scale": ("match", "isometric", None),
    "offset": (False, True, "seed"),
    "init": ("random", "project"),
    "gradient": ("euclidean", "gram", "mean"),
    "materialize": ("model", "layer"),
}
"""The allowed values of some options of `constrain`."""


_REMEDIES = {
    CONSTANT: "name them in where=",
    PARAMETRIZED: "undo that, torch.nn.utils.parametrize.remove_parametrizations,",
}
"""What to do with tensors that were left out, by the reason."""


def _check_choices(**options: str | bool | None) -> None:
    for option, value in options.items():
        if value not in CHOICES[option]:
            allowed = ", ".join(map(repr, CHOICES[option]))
            raise LinconError(f"{option}={value!r}; give one of {allowed}.")


@dataclass
class Plan:
    """A group that will be attached.

    Attributes:
        group: the group, with its multipliers.
        values: the free vector and the buffers, by their names in the owner.
        fit: whether to fit W to the present weights.
    """

    group: Group
    values: dict[str, Tensor]
    fit: bool

    @property
    def random(self) -> list[str]:
        """Names of the tensors that start at random values: neither at W₀ nor at a fit."""
        starts_at_weights = self.fit or self.group.has_offset
        return [] if starts_at_weights else [entry.name for entry in self.group.ledger]


@dataclass(frozen=True)
class Request:
    """The arguments of `constrain` that are the same for all groups."""

    model: nn.Module
    make: Make
    scale: str | None
    offset: bool | str
    init: str
    gradient: str

    def generators(self, of: list[Share], seed: int) -> list[Seeded]:
        """The generator of each share, and the seed of its first W."""
        seeded = []
        for number, share in enumerate(of):
            # A single group uses the seed itself, so that its G is that of a lone generator.
            own_seed = key(seed, _GROUP_STREAM, number) >> 1 if len(of) > 1 else seed
            seeded.append((self._generator(share, own_seed), own_seed))
        return seeded

    def plans(self, of: list[Share], generators: list[Seeded]) -> list[Plan]:
        """A plan for each share. The model does not change."""
        taken: set[str] = set()
        pairs = zip(of, generators, strict=True)
        return [self._plan(share, *seeded, taken) for share, seeded in pairs]

    def _plan(self, share: Share, generator: Generator, seed: int, taken: set[str]) -> Plan:
        first = share.targets[0].tensor
        group = Group(
            free=free_name(_wanted_name(share.label), self.model, taken),
            generator=generator,
            ledger=Ledger.of([(t.names, tuple(t.tensor.shape)) for t in share.targets]),
            isometric=self.scale == "isometric",
            devices=other_devices(share.targets),
            gradient=self.gradient,
        )
        own_units = generator.starts_from_weights
        group, free = initial(
            group,
            share.targets,
            scale=None if own_units else self.scale,
            seed=seed,
            zero=bool(self.offset) or own_units,
        )
        values = {group.free: free.to(first.device, first.dtype)}
        origin = self._origin(generator, share.targets)
        if self.offset == "seed":
            group = replace(group, drawn=drawn(share.targets, seed))
        if origin is not None:
            name = free_name(group.free.replace("free", "origin", 1), self.model, taken)
            group = replace(group, origin=name)
            values[name] = origin.to(first.device, first.dtype)
        return Plan(group, values, (self.init == "project" or own_units) and not self.offset)

    def _generator(self, share: Share, seed: int) -> Generator:
        generator = self.make(share, seed)
        if not isinstance(generator, Generator):
            raise LinconError(
                f"The callable returned a {type(generator).__name__}, not a lincon.Generator."
            )
        dof = generator.dof if share.dof is None else share.dof
        if (generator.rows, generator.dof) != (share.rows, dof):
            raise LinconError(
                f"{generator!r} was asked for {share.rows} rows and {share.dof} dof; it has others."
            )
        return generator

    def _origin(self, generator: Generator, targets: list[Target]) -> Tensor | None:
        """W₀, (rows,), or None if the map is linear."""
        own = generator.offset()
        if not self.offset:
            return own
        if own is not None:
            raise LinconError(f"{generator.name} has its own offset; leave offset out.")
        return None if self.offset == "seed" else flat(targets)


def _at_a_time(
    generators: list[Seeded], of: list[Share], materialize: str
) -> list[tuple[Generator, Sequence[int]]]:
    """Each generator, with the numbers of rows that it will make at a time."""
    sizes = [[target.tensor.numel() for target in share.targets] for share in of]
    pairs = zip(generators, sizes, strict=True)
    return [(generator, at_a_time(own, materialize)) for (generator, _), own in pairs]


def other_devices(targets: list[Target]) -> tuple[str | None, ...]:
    """The device of each tensor, or None if it is that of the first; () if all share one."""
    first = targets[0].tensor.device
    devices = tuple(None if t.tensor.device == first else str(t.tensor.device) for t in targets)
    return devices if any(devices) else ()


def flat(targets: list[Target]) -> Tensor:
    """All tensors as one vector, (rows,), on the device of the first, or on meta if any is."""
    if any(target.tensor.is_meta for target in targets):
        return torch.empty(sum(target.tensor.numel() for target in targets), device="meta")
    device = targets[0].tensor.device
    return torch.cat([target.tensor.detach().reshape(-1).to(device) for target in targets])


def fit(constraint: Constraint, weights: dict[str, nn.Parameter]) -> None:
    """Fit the free vectors to ``weights``. If that fails, the model gets the weights back."""
    try:
        constraint.project(weights)
    except BaseException:
        unbind(constraint, weights)
        raise


def _warn_of_differences(choice: Choice, plans: list[Plan]) -> None:
    """Warn of weights that will not behave as in the unconstrained model."""
    for why, remedy in _REMEDIES.items():
        if names := choice.left_out(why):
            _warn(f"Left out, since {why}: {', '.join(names)} ({remedy} to include them).")
    random = {name for plan in plans for name in plan.random}
    if constant := [name for name in choice.constant if name in random]:
        _warn(
            f"Constant until now, and random from now on: {', '.join(constant)}. Leave them out of "
            "where=, or give offset=True, which starts at the present weights."
        )
    padded = [
        target.name
        for target in choice.targets
        if any(getattr(module, "padding_idx", None) is not None for module, _ in target.places)
    ]
    if padded:
        _warn(f"The padding row of {', '.join(padded)} is generated too and will not stay zero.")


def _warn(message: str) -> None:
    warnings.warn(message, LinconWarning, stacklevel=4)


def _factory(generator: Source, options: dict[str, Any]) -> Make:
    """The function that makes a generator from what the user gave."""
    if isinstance(generator, Generator):
        finished = generator
        return lambda share, seed: finished
    if isinstance(generator, str):
        generator = get(generator)
    if isinstance(generator, type):
        cls = generator
        return lambda share, seed: _construct(cls, share, seed, options)
    if options:
        raise LinconError(f"Options {sorted(options)} were given with a callable; bind them in it.")
    make: Any = generator
    return lambda share, seed: make(share.rows, share.dof, seed, **_asked_shapes(make, share))


def _construct(cls: type[Generator], share: Share, seed: int, options: dict[str, Any]) -> Generator:
    known = options_of(cls)
    for name in options:
        if name not in known:
            raise LinconError(
                f"{cls.name}: no option {name!r}; there are: {', '.join(known) or 'none'}."
            )
    options = {**_asked_shapes(cls, share), **options}
    width: Any = cls.default_dof(share.rows, options) if share.dof is None else share.dof
    return cls.for_weights(flat(share.targets), width, seed, **options)


def _asked_shapes(make: Callable[..., Generator], share: Share) -> dict[str, Any]:
    """The shapes of a share's tensors as an option, if a generator asks for them."""
    option = options_of(make).get(SHAPES)
    if option is None or not (option.default is Parameter.empty or option.default is None):
        return {}
    return {SHAPES: share.shapes}


def _wanted_name(label: str) -> str:
    return f"free_{label.replace('.', '_')}" if label else "free"
