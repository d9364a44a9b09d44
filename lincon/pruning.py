"""Pruning of a constrained model: fewer free numbers, or weights that stay zero. The rest trains as
before."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lincon.attaching.binding import check_changeable, warn_of_stale_optimizers
from lincon.attaching.constraint import Constraint, constraints, owned
from lincon.attaching.dof import as_count
from lincon.attaching.free_vector import FreeVector
from lincon.attaching.group import Group
from lincon.errors import DofError, LinconError, LinconWarning, TargetError
from lincon.maps.registry import get

LEVELS = "free", "weights"


def prune(
    model: nn.Module,
    keep: int | float,
    *,
    level: str = "free",
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, Bool[Tensor, " dof"]]:
    """Prune a constrained model in place, the least important of all its constraints together.

    On the level of the free vector, a free number is dropped for good: the generator becomes a
    `part` of itself, the free Parameter becomes shorter, and the DoF are those that remain. The
    importance of entry j is its effect on the weights, |W_j| times the norm of column j of the map
    from W to all weights. On the level of the weights, single weights become zero for good
    (`mask`), the smallest in magnitude first. Free numbers that no weight reads any more are
    dropped; the others stay.

    Args:
        model: constrained. Optimisers made before hold the old Parameter: make them again.
        keep: how many free numbers, or weights that are not zero, to keep; or a fraction of those
            that exist.
        level: "free" or "weights".
        scores: importance, from 0 on, in place of the default: by name of the free vector, (dof,),
            or of the weight.

    Returns:
        For each free vector by name, a mask (dof before,) of the entries that are kept:
        ``early[mask]`` rewinds to an earlier state, as iterative magnitude pruning does.

    Raises:
        TargetError: nothing is constrained.
        LinconError: a free vector is quantised or holds NaN or infinity, or scores have another
            shape, by name.
        DofError: nothing would be kept. In all cases the model is as it was.

    >>> import lincon
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> masks = lincon.prune(model, 0.5)
    >>> constraint.dof, int(masks["free"].sum())
    (8, 8)
    """
    check_changeable(model)
    placed = owned(model)
    if not placed:
        raise TargetError(f"{type(model).__name__} has no constraint to prune; constrain it first.")
    if level not in LEVELS:
        raise LinconError(f"level={level!r}; give one of {', '.join(map(repr, LEVELS))}.")
    if level == "weights":
        _check_zeros([constraint for _, constraint in placed])
    check_finite([constraint for _, constraint in placed])
    places = [
        _Place(constraint, prefix, number)
        for prefix, constraint in placed
        for number in range(len(constraint.vectors))
    ]
    importance = _importance(places, level, dict(scores or {}))
    existing = sum(int((worth >= 0).sum()) for worth in importance)
    masks = _largest(importance, _as_kept(keep, existing))
    pruned = [
        _prune_group(place.vector.group, mask, worth, level)
        for place, mask, worth in zip(places, masks, importance, strict=True)
    ]
    columns, replaced = {}, []
    for place, (group, mask) in zip(places, pruned, strict=True):
        columns[place.prefix + group.free] = mask
        replaced.append(place.constraint.narrow_group(place.number, group, mask))
    warn_of_stale_optimizers(replaced)
    return columns


def zeros(model: nn.Module) -> tuple[int, int]:
    """How many of a model's generated weights are zero, and how many there are: sparsity, which is
    not DoF.

    >>> import lincon
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> masks = lincon.prune(model, 8, level="weights")
    >>> lincon.zeros(model)
    (24, 32)
    """
    weights = [w for constraint in constraints(model) for w in constraint.weights().values()]
    total = sum(weight.numel() for weight in weights)
    return total - sum(int(weight.count_nonzero()) for weight in weights), total


def check_finite(of: list[Constraint]) -> None:
    """Raise LinconError, by name, for a free vector that is quantised or holds a value that is not
    finite."""
    for constraint in of:
        for name, free in constraint.free.items():
            if not free.is_floating_point():
                raise LinconError(
                    f"{name!r} is quantised already: prune and quantise the model it was made from."
                )
            if not bool(free.isfinite().all()):
                raise LinconError(
                    f"{name!r} holds NaN or infinity: its training diverged; go back to an earlier "
                    "one."
                )


def effect(vector: FreeVector) -> Float[Tensor, " dof"]:
    """How much each free number moves the weights: |W_j| times the norm of its column, (dof,)
    float64."""
    norms = vector.group.map.gram_diagonal().cpu().sqrt()
    return vector.parameter.detach().double().cpu().abs() * norms


@dataclass(frozen=True)
class _Place:
    """A group of a constraint in a model, in which its owner's names begin with ``prefix``."""

    constraint: Constraint
    prefix: str
    number: int

    @property
    def vector(self) -> FreeVector:
        return self.constraint.vectors[self.number]


def _check_zeros(of: list[Constraint]) -> None:
    """Raise LinconError for weights that zero rows of G would not make zero."""
    for constraint in of:
        for group in constraint.groups:
            if group.origin is not None:
                raise LinconError(
                    f"{group.free!r} has an offset, so its weights would not be zero; prune "
                    "level='free'."
                )
            if group.isometric:
                raise LinconError(
                    f"{group.free!r} is isometric: zero rows would change its columns; prune "
                    "level='free'."
                )


def _importance(places: list[_Place], level: str, scores: dict[str, Tensor]) -> list[Tensor]:
    """The importance of each group's free numbers, (dof,), or weights, (rows,), as float64."""
    of_group = _importance_of_free if level == "free" else _importance_of_weights
    importance = [of_group(place, scores) for place in places]
    if scores:  # each group has removed its own
        raise TargetError(
            f"Scores of {sorted(scores)[0]!r}: there is nothing of this name on level={level!r}."
        )
    return importance


def _importance_of_free(place: _Place, scores: dict[str, Tensor]) -> Tensor:
    name = place.prefix + place.vector.group.free
    if name not in scores:
        return effect(place.vector)
    return _checked(name, scores.pop(name), (place.vector.group.generator.dof,))


def _importance_of_weights(place: _Place, scores: dict[str, Tensor]) -> Tensor:
    """-1 for weights that are zero already."""
    vector, parts = place.vector, []
    for entry, weight in zip(vector.group.ledger, vector.weights(), strict=True):
        values = weight.detach().double().cpu().reshape(-1)
        worth = values.abs()
        for name in entry.names:
            if (full := place.prefix + name) in scores:
                worth = _checked(full, scores.pop(full), entry.shape)
        parts.append(worth.where(values != 0, -1.0))
    return torch.cat(parts)


def _checked(name: str, scores: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Scores laid flat, float64 on the CPU."""
    if tuple(scores.shape) != shape or not bool((scores >= 0).all()):
        raise LinconError(
            f"Scores of {name!r} of shape {tuple(scores.shape)}: give numbers from 0 on, {shape}."
        )
    return scores.detach().double().cpu().reshape(-1)


def _as_kept(keep: int | float, existing: int) -> int:
    number = as_count(keep, existing, "keep")
    if number > existing:
        raise DofError(f"keep={keep}: there are only {existing}.")
    return number


def _largest(importance: list[Tensor], keep: int) -> list[Tensor]:
    """A mask for each tensor, true for the ``keep`` largest of all; of equal ones the first."""
    together = torch.cat(importance)
    mask = torch.zeros(len(together), dtype=torch.bool)
    mask[together.sort(descending=True, stable=True).indices[:keep]] = True
    return list(mask.split([len(worth) for worth in importance]))


def _prune_group(group: Group, mask: Tensor, worth: Tensor, level: str) -> tuple[Group, Tensor]:
    """The pruned group, and which entries of its free vector stay."""
    part: Any = get("part")
    masked: Any = get("mask")
    generator = group.generator
    if level == "weights":
        generator = masked.of(generator, mask)
        mask = generator.gram_diagonal() > 0
    if not bool(mask.any()):
        # The weights of a group need something to read, so one number stays.
        warnings.warn(
            f"Nothing of {group.free!r} is left but one number.", LinconWarning, stacklevel=4
        )
        mask = torch.arange(len(mask)) == (worth.argmax() if level == "free" else 0)
    if not bool(mask.all()):
        generator = part.of(generator, mask)
    return replace(group, generator=generator), mask
