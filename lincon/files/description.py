"""The description of a group in a file: `GroupRecord`.

A new field of plain JSON needs one line there and one, of the same name, in `Group`. Older versions
leave out fields that they do not know, with a warning: where the weights depend on one, raise `FORMAT`.
"""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from math import isfinite
from types import NoneType, UnionType
from typing import (
    Any,
    NotRequired,
    TypedDict,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import torch
from torch import Tensor

from lincon.attaching.drawn import Drawn
from lincon.attaching.free_vector import FreeVector
from lincon.attaching.group import Group
from lincon.attaching.ledger import Ledger
from lincon.errors import LinconWarning, one_line
from lincon.maps.registry import build

TABLES = "lincon.tables."
"""The prefix of the keys of a generator's tables, which no seed can rebuild."""

DIMENSIONS = 64
"""The most dimensions of a tensor, as in torch. A product of unlimited sizes could take hours."""


class Spec(TypedDict):
    """A generator, as `Generator.spec` describes it."""

    name: str
    version: int
    rows: int
    dof: int
    seed: int
    options: dict[str, Any]
    digest: NotRequired[str]


class Steps(TypedDict):
    """The steps of a quantised free vector: their buffer, and how many integers share one."""

    name: str
    size: int


class Origin(TypedDict):
    """W₀: its buffer's name, its source ("generator" or "model"), and its checksum, if known."""

    name: str
    of: str
    sha256: str


class DrawnJson(TypedDict):
    """W₀ that is drawn: its seed, [mean, deviation] of each tensor, a checksum of its first rows."""

    seed: int
    tensors: list[list[float]]
    sha256: str


@dataclass(frozen=True)
class GroupRecord:
    """A group as the file describes it; names are those in the owner.

    Attributes:
        free: the name of the free vector.
        generator: the spec of G.
        fingerprint: the fingerprint of G itself.
        isometric: whether the columns of the map are scaled to norm 1.
        ledger: which tensor owns which rows, with which multiplier.
        steps: the steps of a quantised free vector, or None.
        origin: W₀ in a buffer, or None.
        drawn: W₀ that is drawn from a seed, or None.
    """

    free: str
    generator: Spec
    fingerprint: str
    isometric: bool
    ledger: Ledger
    steps: Steps | None = None
    origin: Origin | None = None
    drawn: DrawnJson | None = None

    @classmethod
    def of(cls, vector: FreeVector) -> "GroupRecord":
        """The record of a group that is bound to a model, with the checksum of its W₀."""
        record, origin = cls.of_group(vector.group), vector.origin
        if record.origin is None or origin is None:
            return record
        return replace(record, origin=Origin({**record.origin, "sha256": sha_of(origin)}))

    @classmethod
    def of_group(cls, group: Group) -> "GroupRecord":
        """The record of a group, whatever its W₀ is."""
        of_origin = of_steps = None
        if group.origin is not None:
            holder = "model" if group.generator.offset() is None else "generator"
            of_origin = Origin(name=group.origin, of=holder, sha256="")
        if group.steps is not None:
            of_steps = Steps(name=group.steps, size=group.size)
        return cls(
            **{name: getattr(group, name) for name in _plain_fields()},
            generator=cast(Spec, group.generator.spec()),
            fingerprint=group.generator.fingerprint(),
            steps=of_steps,
            origin=of_origin,
            drawn=None if group.drawn is None else _drawn_json(group.drawn),
        )

    @classmethod
    def read(cls, description: Any) -> "GroupRecord":
        """The record that JSON from a file describes. Raises ValueError if it describes none."""
        check(description, dict, "")
        kinds, values = get_type_hints(cls), {}
        for name in description.keys() - kinds.keys():
            warnings.warn(
                f"The file describes {name!r} of a group, which this lincon does not know.",
                LinconWarning,
                stacklevel=2,
            )
        for field in fields(cls):
            if field.name in description:
                check(description[field.name], kinds[field.name], f"{field.name}.")
                values[field.name] = description[field.name]
            elif field.default is MISSING:
                raise ValueError(f"there is no {field.name!r}")
        record = cls(**{**values, "ledger": Ledger.from_json(values["ledger"])})
        for name in record.own_names:
            if not name or "." in name:
                raise ValueError(f"{name!r} is no name of a free vector or buffer")
        return record

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, without the fields that are None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["ledger"] = self.ledger.to_json()
        return {name: value for name, value in values.items() if value is not None}

    @property
    def own_names(self) -> list[str]:
        """Names of the free vector and of the buffers in the owner."""
        buffers = [buffer["name"] for buffer in (self.steps, self.origin) if buffer is not None]
        return [self.free, *buffers]

    @property
    def names(self) -> list[str]:
        """All names that the group takes in its owner, including generated tensors."""
        return self.own_names + [name for entry in self.ledger for name in entry.names]

    def build(self, stored: Mapping[str, Tensor], tables: dict[str, Tensor]) -> Group:
        """Make the group and its generator, whose fingerprint must be the record's.

        Args:
            stored: the tensors of the owner by name.
            tables: the tables of the generator by constructor argument.

        Raises:
            ValueError: record and tensors do not agree; the generator cannot be made, or is
                another today.
        """
        free, spec = stored.get(self.free), self.generator
        if free is None or free.shape != (spec["dof"],) or self.ledger.rows != spec["rows"]:
            raise ValueError(f"{self.free!r}, its ledger and its generator do not agree.")
        try:
            generator = build(dict(spec), tables)
            is_the_same = generator.fingerprint() == self.fingerprint
        except Exception as error:  # a generator may raise anything for wrong options
            raise ValueError(f"{spec['name']!r} cannot be made ({one_line(error)}).") from None
        if not is_the_same:
            raise ValueError(
                f"this lincon makes another G of {generator!r} than the one that described it: "
                "use the same version."
            )
        origin = None if self.origin is None else self.origin["name"]
        plain = {name: getattr(self, name) for name in _plain_fields()}
        drawn = None if self.drawn is None else _drawn(self.drawn, self.ledger)
        group = Group(**plain, generator=generator, origin=origin, drawn=drawn)
        if self.steps is None and free.is_floating_point():
            return group
        size = self._checked_size(free, stored)
        return replace(group, steps=self.steps["name"] if self.steps else None, size=size)

    def _checked_size(self, free: Tensor, stored: Mapping[str, Tensor]) -> int:
        """How many integers share a step. Raises ValueError if integers and steps do not match."""
        size = self.steps["size"] if self.steps else 0
        steps = stored.get(self.steps["name"]) if self.steps else None
        fits = 0 < size <= max(1, len(free)) and free.dtype == torch.int8
        if not fits or steps is None or not steps.is_floating_point():
            raise ValueError(f"{self.free!r} and the steps of its integers do not agree.")
        if steps.shape != (-(-len(free) // size),):
            raise ValueError(f"{self.free!r} and the steps of its integers do not agree.")
        return size


def _plain_fields() -> list[str]:
    """Fields that a group and its record have alike; the others differ, or are made anew."""
    shared = {field.name for field in fields(GroupRecord)} & {f.name for f in fields(Group)}
    return sorted(shared - {"generator", "steps", "origin", "drawn"})


def _drawn_json(drawn: Drawn) -> DrawnJson:
    tensors = zip(drawn.means, drawn.deviations, strict=True)
    return DrawnJson(
        seed=drawn.seed, tensors=[[*pair] for pair in tensors], sha256=_sha_of_drawn(drawn)
    )


def _drawn(description: DrawnJson, ledger: Ledger) -> Drawn:
    """W₀ that is drawn as a file says. Raises ValueError if this lincon draws another."""
    tensors = description["tensors"]
    if len(tensors) != len(ledger) or any(len(tensor) != 2 for tensor in tensors):
        raise ValueError("W₀ and the ledger do not agree.")
    means, deviations = zip(*tensors, strict=True)
    drawn = Drawn(description["seed"], tuple(ledger.sizes), means, deviations)
    if _sha_of_drawn(drawn) != description["sha256"]:
        raise ValueError("this lincon draws another W₀ than the one that saved the file.")
    return drawn


def _sha_of_drawn(drawn: Drawn) -> str:
    return sha_of(drawn.rows(0, min(sum(drawn.sizes), 4096)))


def tables_prefix(owner: str, free: str) -> str:
    """The prefix of the keys of a group's tables. ``owner`` is the prefix of the owner's names."""
    return f"{TABLES}{owner}{free}."


def sha_of(tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes; "" on the meta device, which has none."""
    if tensor.is_meta:
        return ""
    return hashlib.sha256(bytes_of(tensor.detach().cpu())).hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, in order."""
    plain = tensor.resolve_conj().resolve_neg().contiguous()
    return memoryview(plain.reshape(-1).view(torch.uint8).numpy().data)


def check(value: Any, kind: Any, place: str) -> None:
    """Raise ValueError unless a value from JSON is of a type. Containers are checked item by item.

    ``kind`` is str, int, bool, dict, list, a TypedDict, dict[str, ...], list[...], a union of one
    of these and None, or `Ledger` for the JSON of a ledger. ``place`` names the value in the
    message.
    """
    kind = _without_none(kind)
    container, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if kind is Ledger:
        _check_ledger(value, place)
    elif is_typeddict(kind):
        _check_keys(value, kind, place)
    elif container is dict:
        check(value, dict, place)
        for name, item in value.items():
            check(item, inner[1], f"{place}{name}.")
    elif container is list:
        check(value, list, place)
        for item in value:
            check(item, inner[0], place)
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{place.rstrip('.')} is no {kind.__name__}: {str(value)[:80]!r}")


def _without_none(kind: Any) -> Any:
    """The type beside None in a union."""
    kinds = [member for member in get_args(kind) if member is not NoneType]
    return kinds[0] if isinstance(kind, UnionType) else kind


def _check_keys(value: Any, kind: Any, place: str) -> None:
    check(value, dict, place)
    for name, of_name in get_type_hints(kind).items():
        if name in value:
            check(value[name], of_name, f"{place}{name}.")
        elif name in kind.__required_keys__:
            raise ValueError(f"there is no {place}{name!r}")


def _check_ledger(rows: Any, place: str) -> None:
    check(rows, list[list[Any]], place)
    for row in rows:
        names, shape, scale = row
        check(names, list[str], place)
        check(shape, list[int], place)
        sizes = len(shape) <= DIMENSIONS and min(shape, default=1) >= 1
        if not names or not sizes or isinstance(scale, bool) or not isfinite(scale):
            raise ValueError(f"{str(row)[:80]} is no entry of a ledger")
