"""Slicing: models of fewer channels.

Tensors are cut along their dimensions. A generated tensor is cut by dropping rows of G.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lincon.attaching.binding import check_changeable, warn_of_stale_optimizers
from lincon.attaching.constraint import Constraint, owned
from lincon.attaching.group import Group
from lincon.attaching.ledger import Ledger
from lincon.attaching.targets import Target, targets
from lincon.errors import LinconError, TargetError
from lincon.maps.registry import get
from lincon.shapes import Bool

DimensionMasks = Sequence[Tensor | None]
"""A bool mask of what to keep for each dimension of a tensor. None keeps all.

Dimensions after the last mask are kept whole.
"""


def slice_tensors(model: nn.Module, masks: Mapping[str, DimensionMasks]) -> None:
    """Cut tensors of a model in place: Parameters, buffers and generated weights.

    A generated weight loses rows of G: its generator becomes a `part` of itself. Free numbers that
    no row reads any more are dropped, and the DoF are those that remain. The caller updates the
    sizes that modules store as attributes.

    If it raises an error, the model is unchanged.

    Args:
        model: a constrained or plain model.
        masks: what to keep, by name of the tensor.

    Raises:
        TargetError: a tensor does not exist, or its masks do not fit.
        LinconError: a free vector is quantised, isometric, or has an offset.

    >>> layer = nn.Linear(4, 3)
    >>> first_two = torch.tensor([True, True, False])
    >>> slice_tensors(layer, {"weight": [first_two], "bias": [first_two]})
    >>> layer.weight.shape, layer.bias.shape
    (torch.Size([2, 4]), torch.Size([2]))
    """
    check_changeable(model)
    placed = owned(model)
    _check_names(placed, masks)
    rest = dict(masks)
    slices = [
        part for prefix, constraint in placed for part in _sliced_groups(constraint, prefix, rest)
    ]
    cuts = _cut_tensors(model, rest)
    replaced: list[Tensor] = [part.put() for part in slices]
    for cut in cuts:
        cut.put()
        replaced.append(cut.old)
    warn_of_stale_optimizers(replaced)


@dataclass(frozen=True)
class _Slice:
    """What remains of a group: a new group, and a mask (old dof,) of the free numbers it keeps."""

    constraint: Constraint
    number: int
    group: Group
    columns: Tensor

    def put(self) -> Tensor:
        """Replace the group, and return the old free vector."""
        return self.constraint.narrow_group(self.number, self.group, self.columns)


@dataclass(frozen=True)
class _Cut:
    """A Parameter or buffer before and after the cut, and all places that hold it."""

    places: Sequence[tuple[nn.Module, str]]
    old: Tensor
    new: Tensor

    def put(self) -> None:
        parameter = isinstance(self.old, nn.Parameter)
        new = nn.Parameter(self.new, self.old.requires_grad) if parameter else self.new
        for module, attribute in self.places:
            setattr(module, attribute, new)


def _check_names(placed: list[tuple[str, Constraint]], masks: Mapping[str, DimensionMasks]) -> None:
    """Raise TargetError if a mask names a free vector: only its weights can be sliced."""
    for prefix, constraint in placed:
        for group in constraint.groups:
            for name in (group.free, *group.buffers):
                if prefix + name in masks:
                    raise TargetError(
                        f"{prefix + name!r} belongs to a constraint: "
                        "slice the weights that are generated from it."
                    )


def _cut_tensors(model: nn.Module, masks: Mapping[str, DimensionMasks]) -> list[_Cut]:
    """The cuts of Parameters and buffers. Tied tensors stay tied."""
    parameters = {name: target for target in targets(model) for name in target.names}
    cuts: dict[int, _Cut] = {}
    for name, of_tensor in masks.items():
        cut = _cut_tensor(model, name, parameters.get(name), of_tensor)
        before = cuts.setdefault(id(cut.old), cut)
        if not torch.equal(before.new, cut.new):
            raise _cut_in_two_ways(name)
    return list(cuts.values())


def _cut_tensor(
    model: nn.Module, name: str, parameter: Target | None, masks: DimensionMasks
) -> _Cut:
    if parameter is None:
        places, old = _buffer(model, name)
        return _Cut(places, old, _cut(name, old, masks))
    return _Cut(parameter.places, parameter.tensor, _cut(name, parameter.tensor.detach(), masks))


def _cut_in_two_ways(name: str) -> TargetError:
    return TargetError(
        f"{name!r} is tied to a tensor that is cut in another way; give one of its names."
    )


def _buffer(model: nn.Module, name: str) -> tuple[tuple[tuple[nn.Module, str], ...], Tensor]:
    path, _, attribute = name.rpartition(".")
    try:
        module = model.get_submodule(path)
        tensor = module._buffers[attribute]
    except (AttributeError, KeyError):
        tensor = None
    if tensor is None:
        raise TargetError(f"{type(model).__name__} has no tensor {name!r} to slice.")
    return ((module, attribute),), tensor


def _cut(name: str, tensor: Tensor, masks: DimensionMasks) -> Tensor:
    """A new tensor that holds the entries where all masks are true."""
    for dimension, mask in enumerate(_complete(name, tuple(tensor.shape), masks)):
        tensor = tensor.index_select(dimension, mask.nonzero().squeeze(1).to(tensor.device))
    return tensor.clone()


def _complete(name: str, shape: tuple[int, ...], masks: DimensionMasks) -> list[Tensor]:
    """One mask for every dimension, on the CPU."""
    if len(masks) > len(shape):
        raise TargetError(f"{name!r} has shape {shape}; give bool masks of these lengths.")
    complete = []
    for dimension, length in enumerate(shape):
        mask = masks[dimension] if dimension < len(masks) else None
        mask = torch.ones(length, dtype=torch.bool) if mask is None else mask.cpu()
        if mask.shape != (length,) or mask.dtype != torch.bool:
            raise TargetError(f"{name!r} has shape {shape}; give bool masks of these lengths.")
        complete.append(mask)
    if not all(bool(mask.any()) for mask in complete):
        raise TargetError(f"Nothing of {name!r} would be left; keep something of every dimension.")
    return complete


def _sliced_groups(
    constraint: Constraint, prefix: str, masks: dict[str, DimensionMasks]
) -> list[_Slice]:
    """The groups that are cut. Their tensors' masks are removed from ``masks``."""
    slices = []
    for number, group in enumerate(constraint.groups):
        if of_group := _masks_of(group, prefix, masks):
            slices.append(_Slice(constraint, number, *_sliced(group, of_group)))
    return slices


def _masks_of(
    group: Group, prefix: str, masks: dict[str, DimensionMasks]
) -> dict[str, DimensionMasks]:
    """The masks of a group's tensors by first name. They are removed from ``masks``."""
    own: dict[str, DimensionMasks] = {}
    for entry in group.ledger:
        for name in entry.names:
            if prefix + name not in masks:
                continue
            of_tensor = masks.pop(prefix + name)
            if not _alike(of_tensor, own.setdefault(entry.name, of_tensor)):
                raise _cut_in_two_ways(prefix + name)
    return own


def _sliced(
    group: Group, masks: Mapping[str, DimensionMasks]
) -> tuple[Group, Bool[Tensor, " dof"]]:
    """What remains of a group, and a mask of the free numbers that it keeps."""
    if group.steps or group.isometric or group.origin:
        raise LinconError(
            f"{group.free!r} is quantised, isometric or has an offset, and cannot be sliced."
        )
    part: Any = get("part")
    rows, tensors = [], []
    for entry in group.ledger:
        complete = _complete(entry.name, entry.shape, masks.get(entry.name, ()))
        rows.append(_outer(complete))
        tensors.append((entry.names, tuple(int(mask.sum()) for mask in complete)))
    kept_rows = torch.cat(rows)
    columns = group.generator.gram_diagonal(kept_rows.double()) > 0
    if not bool(columns.any()):  # weights that are all zero must still read a number
        columns = torch.arange(len(columns)) == 0
    generator = part.of(group.generator, columns, kept_rows)
    ledger = Ledger.of(tensors, group.ledger.scales)
    return replace(group, generator=generator, ledger=ledger), columns


def _alike(one: DimensionMasks, other: DimensionMasks) -> bool:
    if len(one) != len(other):
        return False
    for mine, theirs in zip(one, other, strict=True):
        if mine is None or theirs is None:
            if mine is not theirs:
                return False
        elif not mine.equal(theirs):
            return False
    return True


def _outer(masks: Sequence[Tensor]) -> Tensor:
    """A mask of the entries of a tensor that remain, flattened."""
    entries = masks[0]
    for mask in masks[1:]:
        entries = (entries.unsqueeze(-1) & mask).reshape(-1)
    return entries
