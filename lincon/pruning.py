"""Pruning of a constrained model: fewer free numbers, or weights that stay zero. What is left trains as before."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.binding import check_changeable, warn_of_holders
from lincon.attaching.constraint import Constraint, Group, constraints, owned
from lincon.attaching.targets import count
from lincon.errors import DofError, LinconError, LinconWarning, TargetError
from lincon.maps.registry import get

LEVELS = "free", "weights"


def prune(
    model: nn.Module,
    keep: int | float,
    *,
    level: str = "free",
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Prune a constrained model in place, the least important of all its constraints together.

    On the level of the free vector, a free number is dropped for good: the generator becomes a `part` of itself, the
    free Parameter a shorter one, and DoF are what is left. The importance of entry j is its effect on the weights,
    (|W_j| times the norm of column j of the map from W to all weights). On the level of the weights, single weights
    become zero for good (`mask`), the smallest in magnitude first; free numbers that no weight reads any more are
    dropped, the others stay.

    Args:
        model: constrained. Optimizers made before hold the old Parameter: make them again.
        keep: what is kept, of free numbers or of weights that are not zero: how many, or a fraction of those there are.
        level: "free" or "weights".
        scores: importance by name of the free vector, (dof,), or of the weight, in place of the default; from 0 on.

    Returns:
        For each free vector by name, a mask (dof before,) of the entries that are kept: ``early[mask]`` rewinds to an
        earlier state, as iterative magnitude pruning does.

    Raises:
        TargetError: nothing is constrained. LinconError: a free vector that is quantised or holds NaN or infinity, or
        scores of another shape, by name. DofError: nothing would be kept. The model is as it was then.
    """
    check_changeable(model)
    placed = owned(model)
    found = [constraint for _, constraint in placed]
    if not found:
        raise TargetError(f"{type(model).__name__} has no constraint to prune; constrain it first.")
    if level not in LEVELS:
        raise LinconError(f"level={level!r}; give one of {', '.join(map(repr, LEVELS))}.")
    if level == "weights":
        _check_zeros(found)
    places = [(c, prefix, number) for prefix, c in placed for number in range(len(c.groups))]
    check_finite(found)
    unknown = dict(scores or {})
    importance = [
        _importance(c, prefix, c.groups[number], level, unknown) for c, prefix, number in places
    ]
    if unknown:
        raise TargetError(
            f"Scores of {sorted(unknown)[0]!r}: there is nothing of this name on level={level!r}."
        )
    masks = _largest(importance, _kept(keep, sum(int((each >= 0).sum()) for each in importance)))
    plans = [
        _pruned(c.groups[number], mask, worth, level)
        for (c, _, number), mask, worth in zip(places, masks, importance, strict=True)
    ]
    kept, replaced = {}, []
    for (constraint, prefix, number), (group, mask) in zip(places, plans, strict=True):
        kept[prefix + group.free] = mask
        replaced.append(constraint.narrow_group(number, group, mask))
    warn_of_holders(replaced)
    return kept


def zeros(model: nn.Module) -> tuple[int, int]:
    """How many of a model's generated weights are zero, and how many there are: sparsity, which is not DoF."""
    made = [weight for constraint in constraints(model) for weight in constraint.weights().values()]
    return sum(weight.numel() - int(weight.count_nonzero()) for weight in made), sum(
        w.numel() for w in made
    )


def check_finite(found: list[Constraint]) -> None:
    """Raise LinconError for a free vector that is quantised, or holds what is not finite, by name."""
    for constraint in found:
        for name, free in constraint.free.items():
            if not free.is_floating_point():
                raise LinconError(
                    f"{name!r} is quantised already: prune and quantise the model it was made from."
                )
            if not bool(free.isfinite().all()):
                raise LinconError(
                    f"{name!r} holds NaN or infinity: its training diverged; go back to an earlier one."
                )


def _check_zeros(found: list[Constraint]) -> None:
    """Raise LinconError for weights that cannot be made zero by rows of G."""
    for group in (group for constraint in found for group in constraint.groups):
        if group.origin is not None:
            raise LinconError(
                f"{group.free!r} has an offset, so its weights would not be zero; prune level='free'."
            )
        if group.isometric:
            raise LinconError(
                f"{group.free!r} is isometric: zero rows would change its columns; prune level='free'."
            )


def effect(constraint: Constraint, group: Group) -> Tensor:
    """How much each free number moves the weights: |W_j| times the norm of its column, (dof,) float64."""
    return (
        constraint._free(group).detach().double().cpu().abs()
        * group.map.gram_diagonal().cpu().sqrt()
    )


def _importance(
    constraint: Constraint, prefix: str, group: Group, level: str, scores: dict[str, Tensor]
) -> Tensor:
    """Importance of what there is, (dof,) or (rows,) float64, -1 of weights that are zero already.

    What is found in ``scores`` is taken out of it.
    """
    if level == "free":
        return _given(
            scores, [prefix + group.free], (group.generator.dof,), lambda: effect(constraint, group)
        )
    parts = []
    for entry, weight in zip(group.ledger, constraint._generate(group), strict=True):
        names, made = [prefix + name for name in entry.names], weight.detach()
        worth = _given(scores, names, entry.shape, lambda made=made: made.abs())  # type: ignore[misc]
        parts.append(worth.where(made.reshape(-1).cpu() != 0, -1.0))
    return torch.cat(parts)


def _given(
    scores: dict[str, Tensor],
    names: list[str],
    shape: tuple[int, ...],
    default: Callable[[], Tensor],
) -> Tensor:
    given = [scores.pop(name) for name in names if name in scores]
    found = given[0] if given else default()
    if tuple(found.shape) != shape or not bool((found >= 0).all()):
        raise LinconError(
            f"Scores of {names[0]!r} of shape {tuple(found.shape)}: give numbers from 0 on, {shape}."
        )
    return found.detach().double().cpu().reshape(-1)


def _kept(keep: int | float, total: int) -> int:
    number = count(keep, total, "keep")
    if number > total:
        raise DofError(f"keep={keep}: there are only {total}.")
    return number


def _largest(importance: list[Tensor], keep: int) -> list[Tensor]:
    """A mask for each, of the ``keep`` largest of all; of equal ones the first."""
    every = torch.cat(importance)
    mask = torch.zeros(len(every), dtype=torch.bool)
    mask[every.sort(descending=True, stable=True).indices[:keep]] = True
    return list(mask.split([len(each) for each in importance]))


def _pruned(group: Group, mask: Tensor, worth: Tensor, level: str) -> tuple[Group, Tensor]:
    """The pruned group, and which entries of its free vector stay."""
    part: Any = get("part")
    masked: Any = get("mask")
    generator = group.generator
    if level == "weights":
        generator = masked.of(generator, mask)
        mask = generator.gram_diagonal() > 0
    if not bool(
        mask.any()
    ):  # a group of which nothing is left keeps one number: its weights need something to read
        warnings.warn(
            f"Nothing of {group.free!r} is left but one number.", LinconWarning, stacklevel=4
        )
        mask = torch.arange(len(mask)) == (worth.argmax() if level == "free" else 0)
    if not bool(mask.all()):
        generator = part.of(generator, mask)
    return replace(group, generator=generator), mask
