"""The constraint: a ledger, its generators and its free vectors, bound to the module that owns them.

The owner registers each free vector as one Parameter and is the only module that does; everything else looks it up
there at call time, because `functional_call`, DDP and FSDP replace the object. A forward pre-hook of the owner
generates all weights in one operation a group, a forward hook drops them; a weight read at any other time is
generated on its own.
"""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from threading import get_ident
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from lincon.attaching.ledger import Entry, Ledger
from lincon.errors import LinconWarning, TargetError
from lincon.generator import Generator
from lincon.maps.scaled import Scaled
from lincon.processes.shards import check_local, check_unsharded
from lincon.step.generated import Weight
from lincon.step.tape import LayerTape, Tape, WholeTape


@dataclass(frozen=True)
class Group:
    """What shares one free vector.

    ``free``: name of its Parameter in the owner. ``origin``: name of the buffer that holds W₀, or None.
    ``devices``: of each entry where it is not that of the free vector. ``lowered``: whether all of its weights are
    used by operations that autocast runs in lower precision, so that they are generated in it. ``gradient``: what
    the free vector's gradient is divided by, entry by entry: see `Group.divisor`. ``steps``: name of the buffer that
    holds the steps of a quantised free vector, (dof / `size` rounded up,), or None; ``size``: entries that share one.
    """

    free: str
    generator: Generator
    ledger: Ledger
    isometric: bool = False
    origin: str | None = None
    devices: tuple[str | None, ...] = ()
    lowered: bool = False
    gradient: str = "euclidean"
    steps: str | None = None
    size: int = 0

    map: Generator = field(init=False, compare=False)
    """diag(scale) G diag(column scale): what turns the free vector into all weights."""

    _divisors: dict[tuple[torch.device, torch.dtype], Tensor] = field(
        init=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        plain = not self.isometric and set(self.ledger.scales) <= {1.0}
        scaled = Scaled(self.generator, self.ledger.sizes, self.ledger.scales, self.isometric)
        object.__setattr__(self, "map", self.generator if plain else scaled)

    @property
    def buffers(self) -> tuple[str, ...]:
        """Names of the owner's buffers that belong to this group."""
        return tuple(name for name in (self.origin, self.steps) if name is not None)

    def divisor(self, like: Tensor) -> Tensor | None:
        """(dof,), or None for the plain ("euclidean") gradient.

        "gram" divides by diag(GᵀG), the sum of c² over the uses of an entry: gradient descent on W then moves the
        weights as projected gradient descent on Ŵ does, where GᵀG is diagonal. "mean" divides by (Σc)² / Σ1 over the
        uses, the default scaler of STABLE-RPS (Desai and Shrivastava, ICLR 2024). Both with c the multiplier.
        """
        if self.gradient == "euclidean":
            return None
        slot = like.device, like.dtype
        if slot not in self._divisors:
            with torch.inference_mode(False):  # it is kept, and a later backward needs it
                self._divisors[slot] = self._count().to(like.device, like.dtype)
        return self._divisors[slot]

    def _count(self) -> Tensor:
        if self.gradient == "gram":
            total = self.map.gram_diagonal()
        else:
            scales = torch.tensor(self.ledger.scales, dtype=torch.float64, device="cpu")
            rows = scales.repeat_interleave(torch.tensor(self.ledger.sizes, device="cpu"))
            uses = self.generator.gram_diagonal()
            total = self.generator.gram_diagonal(rows).square() / uses.where(
                uses > 0, torch.ones_like(uses)
            )
        return total.where(total > 0, torch.ones_like(total))

    def device(self, index: int) -> str | None:
        return self.devices[index] if self.devices else None


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is divided by ``divisor``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(free: Tensor, divisor: Tensor) -> Tensor:
        return free.view_as(free)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.saved_tensors[0], None


class Constraint:
    """Ŵ = G W (+ W₀) on some tensors of ``owner``. Made by `lincon.constrain` and `lincon.load`.

    Attributes:
        owner: the module that was constrained; its parameters hold the free vectors.
        groups: one for each free vector.
        residual: relative residual ‖G W - target‖ / ‖target‖ of the last projection, or None.
        materialize: "model" generates all weights once a forward, in one operation a group; "layer" generates each
            when it is used, frees it, and generates it again for the backward, so that Ŵ never exists at once.
        copied_from: identifies constraints that are deep copies of one another.
    """

    def __init__(self, owner: nn.Module, groups: list[Group], materialize: str = "model") -> None:
        self.owner = owner
        self.groups = groups
        self.materialize = materialize
        self.residual: float | None = None
        self.copied_from = uuid4().hex
        self._opened: dict[int, Tape | list[list[Tensor]]] = {}

    @property
    def dof(self) -> int:
        """Degrees of freedom: the lengths of the free vectors, added up."""
        return sum(group.generator.dof for group in self.groups)

    @property
    def rows(self) -> int:
        """Generated weights, tied ones counted once."""
        return sum(group.generator.rows for group in self.groups)

    @property
    def ledger(self) -> Ledger:
        """All tensors, group after group; within a group, rows are those of its own generator."""
        return Ledger(tuple(entry for group in self.groups for entry in group.ledger))

    @property
    def free(self) -> dict[str, Tensor]:
        """The free vectors by name, each (dof,), as they are now in the owner."""
        return {group.free: self._free(group) for group in self.groups}

    def replace_group(self, number: int, group: Group, free: nn.Parameter) -> None:
        """Put another group in a place, and its free vector. The list is a new one: copies share the old one."""
        self.groups = [group if n == number else other for n, other in enumerate(self.groups)]
        self.owner._parameters[group.free] = free

    def narrow_group(self, number: int, group: Group, columns: Tensor) -> Tensor:
        """Put in a place a group of which only the free numbers in ``columns``, a mask, are left; the old vector."""
        old = self._free(group)
        kept = old.detach()[columns.to(old.device)].clone()
        self.replace_group(number, group, nn.Parameter(kept, old.requires_grad))
        return old

    def weights(self) -> dict[str, Tensor]:
        """All generated tensors by (first) name, differentiable, generated in one operation a group."""
        made = [self._generate(group) for group in self.groups]
        pairs = zip(self.groups, made, strict=True)
        return {e.name: w for group, ws in pairs for e, w in zip(group.ledger, ws, strict=True)}

    def project(self, weights: Mapping[str, Tensor]) -> float:
        """Fit the free vectors to given weights by least squares, in place.

        Args:
            weights: a tensor for every name of the ledger (a dense `state_dict` will do).

        Returns:
            The relative residual ‖Ŵ - target‖ / ‖target‖ over all tensors; also kept as `residual`.

        Raises:
            TargetError: a tensor is missing or has another shape. Nothing is changed then.
        """
        self._check_exact()
        fitted, self.residual = self.fit(weights)
        with torch.no_grad():
            for group, free in zip(self.groups, fitted, strict=True):
                self._free(group).copy_(free)
        return self.residual

    def fit(self, weights: Mapping[str, Tensor]) -> tuple[list[Tensor], float]:
        """The least-squares free vectors for given weights, and the relative residual; changes nothing."""
        fitted, missed, norm = [], 0.0, 0.0
        for group in self.groups:
            target = torch.cat([self._target(entry, weights) for entry in group.ledger])
            wanted = (
                target
                if (origin := self._origin(group)) is None
                else target - origin.double().cpu()
            )
            plain = Scaled(
                group.generator, group.ledger.sizes, group.ledger.scales, group.isometric
            )
            free = plain.project(wanted)
            missed += float((plain.unpack(free) - wanted).square().sum())
            norm += float(target.square().sum())
            fitted.append(free)
        return fitted, (missed / norm) ** 0.5 if norm else 0.0

    def _target(self, entry: Entry, weights: Mapping[str, Tensor]) -> Tensor:
        found = next((weights[name] for name in entry.names if name in weights), None)
        if found is None:
            raise TargetError(
                f"No weights for {entry.name!r}; project needs all of: {[e.name for e in self.ledger]}."
            )
        if tuple(found.shape) != entry.shape:
            raise TargetError(
                f"Weights for {entry.name!r} have shape {tuple(found.shape)}, not {entry.shape}."
            )
        target = found.detach().double().cpu().reshape(-1)
        if not bool(target.isfinite().all()):
            raise TargetError(
                f"Weights for {entry.name!r} hold a value that is not finite; nothing can be fitted to them."
            )
        return target

    def __repr__(self) -> str:
        names = ", ".join(repr(group.generator) for group in self.groups[:3])
        more = f", ... {len(self.groups)} in all" if len(self.groups) > 3 else ""
        return f"Constraint({len(self.ledger)} tensors, {self.dof} dof -> {self.rows} rows: {names}{more})"

    # Reading.

    def _free(self, group: Group) -> Tensor:
        free = self.owner._parameters[group.free]
        assert free is not None
        return free

    def scaled(self, free: Tensor, group: Group) -> Tensor:
        """The free vector as generation sees it: integers times steps, or with a gradient divided as the group says."""
        check_local(group.free, free)
        if group.steps is not None:
            steps = self._steps(group)
            return (
                free.to(steps.dtype)
                * steps.repeat_interleave(min(group.size, len(free)))[: len(free)]
            )
        divisor = group.divisor(free) if torch.is_grad_enabled() else None
        return free if divisor is None else _ScaledGradient.apply(free, divisor)

    def _origin(self, group: Group) -> Tensor | None:
        return None if group.origin is None else self.owner._buffers[group.origin]

    def _steps(self, group: Group) -> Tensor:
        steps = self.owner._buffers[str(group.steps)]
        assert steps is not None
        return steps

    def _dtype(self, group: Group) -> torch.dtype:
        """What the weights are generated in: the free vector's type, or autocast's where it would cast them all."""
        free = self._free(group) if group.steps is None else self._steps(group)
        if group.lowered and torch.is_autocast_enabled(free.device.type):
            return torch.get_autocast_dtype(free.device.type)
        return free.dtype

    def _generate(self, group: Group) -> list[Tensor]:
        """All weights of a group, from one operation."""
        free = self.scaled(self._free(group), group)
        flat = group.map.unpack(free, dtype=self._dtype(group))
        if (origin := self._origin(group)) is not None:
            flat = flat + origin.to(flat.dtype)
        parts = flat.split(group.ledger.sizes)
        made = [part.view(entry.shape) for part, entry in zip(parts, group.ledger, strict=True)]
        return [_to(weight, group.device(i)) for i, weight in enumerate(made)]

    def _generate_one(self, group: Group, index: int, free: Tensor, dtype: torch.dtype) -> Tensor:
        entry = group.ledger.entries[index]
        return self._shaped(
            group, index, group.map.unpack(free, entry.start, entry.stop, dtype=dtype)
        )

    def _shaped(self, group: Group, index: int, flat: Tensor) -> Tensor:
        """The weight of an entry from its generated rows."""
        entry = group.ledger.entries[index]
        if (origin := self._origin(group)) is not None:
            flat = flat + origin[entry.start : entry.stop].to(flat.dtype)
        return _to(flat.view(entry.shape), group.device(index))

    def read(self, key: tuple[int, int]) -> Tensor:
        """The tensor of entry ``key`` = (group, index): that of the running forward, or made on demand."""
        group, opened = self.groups[key[0]], self._opened.get(_thread())
        if isinstance(opened, Tape):
            if (weight := opened.read(key)) is not None:
                return weight
        elif opened is not None:
            return opened[key[0]][key[1]]
        made = self._generate_one(
            group, key[1], self.scaled(self._free(group), group), self._dtype(group)
        )
        return made if _traced() else made.as_subclass(Weight)

    def _open(self, module: nn.Module, args: Any) -> None:
        """Forward pre-hook of the owner: generate everything once, or start to generate layer by layer."""
        self._close(module, args, None)
        if not _traced():
            self._opened[_thread()] = (LayerTape if self.materialize == "layer" else WholeTape)(
                self
            )
        elif self.materialize == "model":
            self._opened[_thread()] = [self._generate(group) for group in self.groups]

    def _close(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of the owner, also after an error: let go of the weights."""
        opened = self._opened.pop(_thread(), None)
        if isinstance(opened, Tape):
            opened.close()

    def _load(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Pre-hook of the owner's load_state_dict: a dense checkpoint is fitted by least squares."""
        if any(prefix + group.free in state_dict for group in self.groups):
            self._check_quantised(state_dict, prefix)
            return
        names = {name: prefix + name for entry in self.ledger for name in entry.names}
        dense = {name: state_dict[key] for name, key in names.items() if key in state_dict}
        if not dense:
            return
        self._check_exact()
        fitted, self.residual = self.fit(dense)
        if self.residual > 1e-4:
            warnings.warn(
                f"The checkpoint holds dense weights; the free vectors are fitted to them with a relative residual "
                f"of {self.residual:.3g}.",
                LinconWarning,
                stacklevel=2,
            )
        for group, free in zip(self.groups, fitted, strict=True):
            state_dict[prefix + group.free] = free.to(self._free(group))
            if group.origin is not None:
                state_dict.setdefault(prefix + group.origin, self._origin(group))
        for key in names.values():
            state_dict.pop(key, None)

    def _check_exact(self) -> None:
        """A fit would be cut to integers, or be lost with what a rank has gathered."""
        check_unsharded(self.owner)
        if quantised := next(
            (group.free for group in self.groups if group.steps is not None), None
        ):
            raise TargetError(
                f"{quantised!r} is quantised: project the model it was made from, and quantise again."
            )

    def _check_quantised(self, state_dict: Mapping[str, Any], prefix: str) -> None:
        """Numbers would be cut to integers, or integers taken for numbers, without a word."""
        for group in self.groups:
            given = state_dict.get(prefix + group.free)
            if isinstance(given, Tensor) and given.is_floating_point() == (group.steps is not None):
                what = "integers" if group.steps is not None else "numbers"
                raise TargetError(
                    f"{group.free!r} takes {what}, the state_dict has {given.dtype}: see lincon.quantize."
                )

    # Copies.

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Constraint":
        if id(self.owner) not in memo:
            raise TargetError(
                "A part of a constrained model was copied without its free vector: copy the model that owns it "
                f"({type(self.owner).__name__}), or lincon.merge(model) first."
            )
        copy = object.__new__(Constraint)
        memo[id(self)] = copy
        copy.__dict__.update({**self.__getstate__(), "owner": deepcopy(self.owner, memo)})
        return copy


def _to(weight: Tensor, device: str | None) -> Tensor:
    return weight if device is None else weight.to(device)


def _traced() -> bool:
    """Whether a compiler or a transform of torch.func looks on: they get operations they can differentiate."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _thread() -> int:
    """Forwards in several threads do not share their weights; a compiled one has no thread."""
    return 0 if torch.compiler.is_compiling() else get_ident()


def with_scales(group: Group, scales: list[float]) -> Group:
    """The group with other multipliers."""
    entries = tuple(replace(e, scale=s) for e, s in zip(group.ledger, scales, strict=True))
    return replace(group, ledger=Ledger(entries))


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


def prefixes(model: nn.Module, owner: nn.Module) -> list[str]:
    """What stands before the names of an owner's tensors in the model: "" or "owner.", several if it is there twice."""
    every = model.named_modules(remove_duplicate=False)
    return [f"{name}." if name else "" for name, module in every if module is owner]


def owned(model: nn.Module) -> list[tuple[str, Constraint]]:
    """`constraints`, each with the first of its owner's `prefixes`."""
    return [(prefixes(model, constraint.owner)[0], constraint) for constraint in constraints(model)]
