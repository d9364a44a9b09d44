"""G as a value: the constraints of a model as plain JSON, and a model constrained like that.

A configuration that holds it, such as Lightning's hyperparameters or one of Hugging Face, builds
the same constrained model again, whatever the new model's initial weights are.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from lincon.attaching.binding import bind, unbind, unwrapped, warn_of_stale_optimizers
from lincon.attaching.claims import claimed
from lincon.attaching.constrain import CHOICES, fit, flat, other_devices
from lincon.attaching.constraint import Constraint, owned
from lincon.attaching.group import Group
from lincon.attaching.initial import initial
from lincon.attaching.targets import Target
from lincon.errors import LinconError, TargetError, one_line
from lincon.files.description import GroupRecord, check
from lincon.processes.shards import check_unsharded

FORMAT = 1


class Constrained(TypedDict):
    """A constraint: its owner's name in the model, how it trains, and its groups."""

    owner: str
    materialize: str
    gradient: str
    groups: list[dict[str, Any]]


class Spec(TypedDict):
    """All constraints of a model, in the order in which they were made."""

    format: int
    constraints: list[Constrained]


def spec(model: nn.Module) -> dict[str, Any]:
    """What G is, for all constraints of a model: plain JSON, for `constrain_like`.

    It holds generators, seeds, options, ledgers and multipliers: a few hundred bytes a free vector
    and some tens a tensor. It holds neither W nor W₀.

    Raises:
        TargetError: nothing is constrained.
        LinconError: G is a table that no seed can rebuild, or W is quantised: use `lincon.save`.

    >>> import lincon
    >>> model = nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16, seed=3)
    >>> lincon.spec(model)["constraints"][0]["groups"][0]["generator"]["seed"]
    3
    """
    placed = owned(unwrapped(model))
    if not placed:
        raise TargetError(f"{type(model).__name__} has no constraint to describe.")
    constraints = [
        Constrained(
            owner=prefix.rstrip("."),
            materialize=constraint.materialize,
            gradient=constraint.groups[0].gradient,
            groups=[_described(group) for group in constraint.groups],
        )
        for prefix, constraint in placed
    ]
    value: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "constraints": constraints}))
    return value


def _described(group: Group) -> dict[str, Any]:
    if group.generator.tables():
        raise LinconError(
            f"The G of {group.free!r} ({group.generator.name}) is a table that no seed can "
            "rebuild: store the model with lincon.save."
        )
    if group.steps is not None:
        raise LinconError(
            f"{group.free!r} is quantised: describe the model it was made from, and quantise "
            "again; or store it with lincon.save."
        )
    return GroupRecord.of_group(group).to_json()


def constrain_like(model: nn.Module, spec: Mapping[str, Any]) -> list[Constraint]:
    """Constrain a model as another one is, in place, with the same G to the bit.

    The multipliers are those of the spec, so that the model's initial weights do not matter, and
    the model may be on the meta device. W is drawn from the seed, with the standard deviation over
    all tensors that the model has; where the spec has an offset, W₀ are the present weights and
    W = 0. Then load a `state_dict`, or train.

    Args:
        model: a model of the same architecture that is not constrained. If it raises an error, the
            model is unchanged.
        spec: what `spec` returned for the other model.

    Returns:
        The constraints.

    Raises:
        TargetError: the model lacks a tensor, or has it with another shape or other ties.
        LinconError: the spec is damaged or of a newer lincon, or this lincon makes another G.

    >>> import lincon
    >>> model, other = nn.Linear(8, 4), nn.Linear(8, 4)
    >>> constraint = lincon.constrain(model, "ring", dof=16)
    >>> constraints = constrain_like(other, lincon.spec(model))
    >>> other.load_state_dict(model.state_dict())
    <All keys matched successfully>
    >>> torch.equal(model.weight, other.weight)
    True
    """
    if unwrapped(model) is not model:
        raise TargetError(
            f"The model is in a {type(model).__name__} already: constrain it first, then wrap it."
        )
    check_unsharded(model)
    if owned(model):
        raise TargetError(f"{type(model).__name__} is constrained already; lincon.merge it first.")
    bound: list[tuple[Constraint, list[Target]]] = []
    try:
        for description in _checked(spec):
            with torch.device("cpu"), torch.inference_mode(False):
                bound.append(_constrained(model, description))
    except BaseException:
        for constraint, targets in reversed(bound):
            unbind(constraint, {name: t.tensor for t in targets for name in t.names})
        raise
    warn_of_stale_optimizers([target.tensor for _, targets in bound for target in targets])
    return [constraint for constraint, _ in bound]


def _checked(spec: Mapping[str, Any]) -> list[Constrained]:
    """The constraints of a spec, whose values have the right types."""
    try:
        value: Any = dict(spec)
        check(value, Spec, "")
        if value["format"] > FORMAT:
            raise ValueError(f"format {value['format']} is of a newer lincon")
        for constraint in value["constraints"]:
            if not constraint["groups"]:
                raise ValueError(f"the constraint of {constraint['owner']!r} has no groups")
            for option in ("materialize", "gradient"):
                if constraint[option] not in CHOICES[option]:
                    raise ValueError(f"{option} is {constraint[option]!r}")
        constraints: list[Constrained] = value["constraints"]
        return constraints
    except (ValueError, TypeError) as error:
        raise LinconError(f"This is no spec of lincon.spec: {one_line(error)}.") from None


def _constrained(model: nn.Module, description: Constrained) -> tuple[Constraint, list[Target]]:
    """Constrain one owner, and return the tensors that were replaced."""
    try:
        owner, groups, chosen = _matched(model, description)
        values: dict[str, Tensor] = {}
        for group, targets in zip(groups, chosen, strict=True):
            values |= _values(group, targets)
            group.divisor(values[group.free])
        everything = [target for targets in chosen for target in targets]
        constraint = bind(owner, groups, everything, values)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        # What fits no model, what does not fit this one, and names that are taken.
        kind = TargetError if isinstance(error, TargetError | KeyError) else LinconError
        why = f"The spec does not fit this {type(model).__name__}: {one_line(error)}"
        raise kind(why) from None
    constraint.materialize = description["materialize"]
    if _is_fitted(groups) and not any(target.tensor.is_meta for target in everything):
        fit(constraint, {target.name: target.tensor for target in everything})
    return constraint, everything


def _matched(
    model: nn.Module, description: Constrained
) -> tuple[nn.Module, list[Group], list[list[Target]]]:
    """The owner of a constraint, its groups, and the tensors of each."""
    records = [GroupRecord.read(group) for group in description["groups"]]
    owner = model.get_submodule(description["owner"])
    prefix = f"{description['owner']}." if description["owner"] else ""
    # The ledger comes first: if it fits, G has the size of the model.
    chosen = [claimed(owner, prefix, record.ledger, "the spec") for record in records]
    groups = [
        replace(_group(record), gradient=description["gradient"], devices=other_devices(targets))
        for record, targets in zip(records, chosen, strict=True)
    ]
    return owner, groups, chosen


def _group(record: GroupRecord) -> Group:
    """The group of a record, whose G is checked."""
    if "digest" in record.generator or record.steps is not None:
        raise ValueError(
            f"the G or the integers of {record.free!r} are in lincon.save's files only"
        )
    free = torch.empty(record.generator["dof"], device="meta")
    return record.build({record.free: free}, {})


def _is_fitted(groups: list[Group]) -> bool:
    """Whether W starts at the fit to the present weights, as they are in G's own units."""
    return any(group.generator.starts_from_weights and not group.has_offset for group in groups)


def _values(group: Group, targets: list[Target]) -> dict[str, Tensor]:
    """The first free vector, and W₀, by their names in the owner."""
    like = targets[0].tensor.detach()
    if any(target.tensor.is_meta for target in targets):
        free = torch.empty(group.generator.dof, device="meta")
    else:
        zero = group.has_offset or group.generator.starts_from_weights
        _, free = initial(group, targets, scale=None, seed=group.generator.seed, zero=zero)
    values = {group.free: free.to(like)}
    if group.origin is not None:
        own = group.generator.offset()
        values[group.origin] = (flat(targets) if own is None else own).to(like)
    return values
