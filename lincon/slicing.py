"""Slicing: models of fewer channels. Tensors are cut along their dimensions, generated ones by dropping rows of G."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.binding import check_changeable, warn_of_holders
from lincon.attaching.constraint import Constraint, Group, owned
from lincon.attaching.ledger import Ledger
from lincon.attaching.targets import targets
from lincon.errors import LinconError, TargetError
from lincon.maps.registry import get

Kept = Sequence[Tensor | None]
"""For each dimension of a tensor a mask of what is kept, bool; None, or no mask for later dimensions: all."""


def slice_tensors(model: nn.Module, kept: Mapping[str, Kept]) -> None:
    """Cut tensors of a model in place: Parameters, buffers, and weights that are generated.

    A generated weight loses rows of G (its generator becomes a `part` of itself), and the free numbers that no row
    reads any more are dropped: DoF are what is left. What modules say of their sizes is left to the caller.

    Args:
        model: constrained or not.
        kept: by name of the tensor.

    Raises:
        TargetError: no such tensor, or masks that do not fit it, by name. LinconError: a free vector that is quantised,
        isometric, or has an offset. The model is as it was then.
    """
    check_changeable(model)
    found = owned(model)
    _check_names(found, kept)
    left = dict(kept)
    plans = [(c, _sliced(c, prefix, left)) for prefix, c in found]
    plain = _plain(model, left)
    replaced: list[Tensor] = []
    for constraint, groups in plans:
        for number, (group, mask) in groups.items():
            replaced.append(constraint.narrow_group(number, group, mask))
    for places, old, new in plain:
        made = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        for module, attribute in places:
            setattr(module, attribute, made)
        replaced.append(old)
    warn_of_holders(replaced)


def _check_names(found: list[tuple[str, Constraint]], kept: Mapping[str, Kept]) -> None:
    """Free vectors are cut by what is generated from them, never by themselves."""
    own = {prefix + name for prefix, c in found for g in c.groups for name in (g.free, *g.buffers)}
    if wrong := [name for name in kept if name in own]:
        raise TargetError(
            f"{wrong[0]!r} belongs to a constraint: slice the weights that are generated from it."
        )


def _plain(
    model: nn.Module, kept: Mapping[str, Kept]
) -> list[tuple[Sequence[tuple[nn.Module, str]], Tensor, Tensor]]:
    """Places, old and new tensor of each Parameter or buffer that is cut; tied ones stay tied."""
    parameters = {name: target for target in targets(model) for name in target.names}
    cut: dict[int, tuple[Sequence[tuple[nn.Module, str]], Tensor, Tensor]] = {}
    for name, masks in kept.items():
        path, _, attribute = name.rpartition(".")
        target = parameters.get(name)
        places, old = (
            (target.places, target.tensor) if target else _buffer(model, name, path, attribute)
        )
        new = _cut(name, old.detach(), masks)
        if id(old) in cut and not torch.equal(cut[id(old)][2], new):
            raise TargetError(
                f"{name!r} is tied to a tensor that is cut in another way; give one of its names."
            )
        cut[id(old)] = places, old, new
    return list(cut.values())


def _buffer(
    model: nn.Module, name: str, path: str, attribute: str
) -> tuple[tuple[tuple[nn.Module, str], ...], Tensor]:
    try:
        module = model.get_submodule(path)
        tensor = module._buffers[attribute]
    except (AttributeError, KeyError):
        tensor = None
    if tensor is None:
        raise TargetError(f"{type(model).__name__} has no tensor {name!r} to slice.")
    return ((module, attribute),), tensor


def _cut(name: str, tensor: Tensor, masks: Kept) -> Tensor:
    """The tensor where all masks are true, as one of its own."""
    for dimension, mask in enumerate(_checked(name, tuple(tensor.shape), masks)):
        tensor = tensor.index_select(dimension, mask.nonzero().squeeze(1).to(tensor.device))
    return tensor.clone()


def _checked(name: str, shape: tuple[int, ...], masks: Kept) -> list[Tensor]:
    """A mask for every dimension."""
    filled = [*masks, *[None] * (len(shape) - len(masks))]
    whole = [
        torch.ones(n, dtype=torch.bool) if m is None else m.cpu()
        for m, n in zip(filled, shape, strict=False)
    ]
    fit = [
        mask.shape == (n,) and mask.dtype == torch.bool
        for mask, n in zip(whole, shape, strict=True)
    ]
    if len(filled) > len(shape) or not all(fit):
        raise TargetError(f"{name!r} has shape {shape}; give bool masks of these lengths.")
    if not all(bool(mask.any()) for mask in whole):
        raise TargetError(f"Nothing of {name!r} would be left; keep something of every dimension.")
    return whole


def _sliced(
    constraint: Constraint, prefix: str, left: dict[str, Kept]
) -> dict[int, tuple[Group, Tensor]]:
    """By number, the groups that are cut and which free numbers stay; what they take is taken out of ``left``."""
    part: Any = get("part")
    cut: dict[int, tuple[Group, Tensor]] = {}
    for number, group in enumerate(constraint.groups):
        names = {prefix + name: entry.name for entry in group.ledger for name in entry.names}
        given: dict[str, Kept] = {}
        for name in [name for name in left if name in names]:
            masks, other = left.pop(name), given.get(names[name])
            if other is not None and not _alike(masks, other):
                raise TargetError(
                    f"{name!r} is tied to a tensor that is cut in another way; give one of its names."
                )
            given[names[name]] = masks
        if not given:
            continue
        if group.steps or group.isometric or group.origin:
            raise LinconError(
                f"{group.free!r} is quantised, isometric or has an offset, and cannot be sliced."
            )
        cuts = [_checked(e.name, e.shape, given.get(e.name, ())) for e in group.ledger]
        rows = torch.cat([_outer(masks) for masks in cuts])
        tensors = [
            (e.names, tuple(int(m.sum()) for m in masks))
            for e, masks in zip(group.ledger, cuts, strict=True)
        ]
        columns = group.generator.gram_diagonal(rows.double()) > 0
        if not bool(columns.any()):  # weights that are all zero need a number to read all the same
            columns = torch.arange(len(columns)) == 0
        generator = part.of(group.generator, columns, rows)
        cut[number] = (
            replace(group, generator=generator, ledger=Ledger.of(tensors, group.ledger.scales)),
            columns,
        )
    return cut


def _alike(one: Kept, other: Kept) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(
        a is b or (a is not None and b is not None and a.equal(b)) for a, b in pairs
    )


def _outer(masks: Sequence[Tensor]) -> Tensor:
    """Which entries of a tensor stay, laid flat."""
    kept = masks[0]
    for mask in masks[1:]:
        kept = (kept.unsqueeze(-1) & mask).reshape(-1)
    return kept
