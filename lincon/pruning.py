"""Pruning of a constrained model: fewer free numbers, or weights that stay zero.

What remains trains as before.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.binding import check_changeable, warn_of_stale_optimizers
from lincon.attaching.constraint import Constraint, constraints, owned
from lincon.attaching.dof import as_count
from lincon.attaching.free_vector import FreeVector
from lincon.attaching.group import Group
from lincon.errors import DofError, LinconError, LinconWarning, TargetError
from lincon.maps.registry import get
from lincon.shapes import Bool, Float

LEVELS = "free", "weights"


def prune(
    model: nn.Module,
    keep: int | float,
    *,
    level: str = "free",
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, Bool[Tensor, " dof"]]:
    """Prune a constrained model in place. The importance is compared across all its constraints.

    ``level="free"`` drops free numbers for good. The generator becomes a `part` of itself, the free
    Parameter becomes shorter, and the DoF are those that remain. The importance of entry j is its
    effect on the weights: ``|W_j|`` times the norm of column j of the map from W to all weights.

    ``level="weights"`` sets single weights to zero for good (`mask`), the smallest in magnitude
    first. It then drops the free numbers that no weight reads any more.

    If it raises an error, the model is unchanged.

    Args:
        model: a constrained model. An existing optimiser holds the old Parameter: make a new one.
        keep: the number of free numbers, or of non-zero weights, to keep; or the fraction of those
            that exist.
        level: "free" or "weights".
        scores: the importance, at least 0, that replaces the default, by name of the free vector,
            (dof,), or of the weight, in its shape.

    Returns:
        A mask (old dof,) for each free vector by name, which is true for the entries that remain.
        ``early[mask]`` rewinds to an earlier state, as iterative magnitude pruning does.

    Raises:
        TargetError: nothing is constrained, or no tensor has the name of some scores.
        LinconError: ``level`` is unknown, scores have a wrong shape, or a free vector is quantised
            or holds NaN or infinity. With ``level="weights"`` also if it has an offset or is
            isometric.
        DofError: nothing would remain, or ``keep`` exceeds what exists.

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
    """The number of generated weights that are zero, and the number of all generated weights.

    This sparsity says nothing about the DoF.

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
    """Raise LinconError if a free vector is quantised or holds NaN or infinity."""
    for constraint in of:
        for name, free in constraint.free.items():
            if not free.is_floating_point():
                raise LinconError(
                    f"{name!r} is quantised already: prune and quantise the model it was made from."
                )
            if not bool(free.isfinite().all()):
                raise LinconError(
                    f"{name!r} holds NaN or infinity, so its training diverged; "
                    "go back to an earlier state."
                )


def effect(vector: FreeVector) -> Float[Tensor, " dof"]:
    """The effect of each free number on the weights, |W_j| times its column's norm, as float64."""
    norms = vector.group.map.gram_diagonal().cpu().sqrt()
    return vector.parameter.detach().double().cpu().abs() * norms


@dataclass(frozen=True)
class _Place:
    """A group of a constraint in a model, where its owner's names begin with ``prefix``."""

    constraint: Constraint
    prefix: str
    number: int

    @property
    def vector(self) -> FreeVector:
        return self.constraint.vectors[self.number]


def _check_zeros(of: list[Constraint]) -> None:
    """Raise LinconError if zero rows of G would not make the weights zero."""
    for constraint in of:
        for group in constraint.groups:
            if group.has_offset:
                raise LinconError(
                    f"{group.free!r} has an offset, so its weights would not be zero; "
                    "prune with level='free'."
                )
            if group.isometric:
                raise LinconError(
                    f"{group.free!r} is isometric, so zero rows would change its columns; "
                    "prune with level='free'."
                )


def _importance(places: list[_Place], level: str, scores: dict[str, Tensor]) -> list[Tensor]:
    """The importance of each group's free numbers, (dof,), or weights, (rows,), as float64."""
    of_group = _importance_of_free if level == "free" else _importance_of_weights
    importance = [of_group(place, scores) for place in places]
    if scores:  # each group has removed its own
        raise TargetError(
            f"Scores of {sorted(scores)[0]!r}: level={level!r} has nothing of this name."
        )
    return importance


def _importance_of_free(place: _Place, scores: dict[str, Tensor]) -> Tensor:
    name = place.prefix + place.vector.group.free
    if name not in scores:
        return effect(place.vector)
    return _checked(name, scores.pop(name), (place.vector.group.generator.dof,))


def _importance_of_weights(place: _Place, scores: dict[str, Tensor]) -> Tensor:
    """The importance of each weight, (rows,); -1 for weights that are zero already."""
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
    """Scores flattened to float64 on the CPU, or LinconError if they do not fit."""
    if tuple(scores.shape) != shape or not bool((scores >= 0).all()):
        raise LinconError(
            f"Scores of {name!r} have shape {tuple(scores.shape)}; give numbers >= 0 of {shape}."
        )
    return scores.detach().double().cpu().reshape(-1)


def _as_kept(keep: int | float, existing: int) -> int:
    number = as_count(keep, existing, "keep")
    if number > existing:
        raise DofError(f"keep={keep}: there are only {existing}.")
    return number


def _largest(importance: list[Tensor], keep: int) -> list[Tensor]:
    """A mask for each tensor: true for the ``keep`` largest of all, the first of equal ones."""
    together = torch.cat(importance)
    mask = torch.zeros(len(together), dtype=torch.bool)
    mask[together.sort(descending=True, stable=True).indices[:keep]] = True
    return list(mask.split([len(worth) for worth in importance]))


def _prune_group(group: Group, mask: Tensor, worth: Tensor, level: str) -> tuple[Group, Tensor]:
    """The pruned group, and a mask (dof,) of the free entries that remain."""
    part: Any = get("part")
    masked: Any = get("mask")
    generator = group.generator
    if level == "weights":
        generator = masked.of(generator, mask)
        mask = generator.gram_diagonal() > 0
    if not bool(mask.any()):
        # The weights of a group must read something, so one number stays.
        warnings.warn(
            f"Nothing of {group.free!r} is left but one number.", LinconWarning, stacklevel=4
        )
        mask = torch.arange(len(mask)) == (worth.argmax() if level == "free" else 0)
    if not bool(mask.all()):
        generator = part.of(generator, mask)
    return replace(group, generator=generator), mask
