"""What a state_dict says of G: one small tensor beside each free vector.

Its values are the character codes of a text: `MARK`, a digest, and JSON that describes the group
(see `GroupRecord`) with the exact bits of its multipliers, and of the means and deviations of a W₀
that is drawn: what follows from a model's initial weights. A character is a float16, of 0 to 127,
and is read by rounding. So other precisions, averages and running averages of equal entries leave
the text as it is. Its length does not depend on those bits, because tools compare shapes.

`lincon.save` stores mark and digest alone, since the header of its file describes the groups. That
digest covers W₀ too, which is in the state_dict and not in the file.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lincon.attaching.drawn import Drawn
from lincon.attaching.free_vector import FreeVector
from lincon.attaching.group import Group
from lincon.errors import FileError, one_line
from lincon.files.description import GroupRecord
from lincon.shapes import Float

SUFFIX = "_spec"
"""What the name of an entry has after that of its free vector."""

MARK = "lincon "
"""The first characters of an entry."""

HEAD = len(MARK) + 32
"""The length of an entry without its JSON: the mark, and 32 hex digits of SHA-256."""

LONGEST = 1 << 26
"""The most characters of an entry that are read."""


def entry_of(group: Group) -> Float[Tensor, " characters"]:
    """The entry of a group, (characters,) float16 on the CPU."""
    return _tensor(_text(GroupRecord.of_group(group)))


def head_of(vector: FreeVector) -> Float[Tensor, " characters"]:
    """The entry of a group in a file of lincon: (`HEAD`,) float16 on the CPU."""
    return _tensor(_text(GroupRecord.of(vector))[:HEAD])


def name_beside(free: str) -> str:
    """The name of the entry of a free vector."""
    return f"{free}{SUFFIX}"


def is_entry(name: str, tensor: Any) -> bool:
    """Whether a tensor of a state_dict or file is an entry: by its name, and as it has the mark."""
    if SUFFIX not in name or not isinstance(tensor, Tensor) or not has_values(tensor):
        return False
    return tensor.dim() == 1 and _characters(tensor[: len(MARK)]) == MARK


def without_entries(state: Mapping[str, Any]) -> dict[str, Any]:
    """The other tensors of a state_dict or file."""
    return {name: tensor for name, tensor in state.items() if not is_entry(name, tensor)}


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor's values can be read: they cannot on the meta device or of a fake tensor."""
    return not tensor.is_meta and type(tensor).__name__ != "FakeTensor"


def restored(vector: FreeVector, stated: Tensor) -> Group:
    """The vector's group with the multipliers and the drawn W₀ of an entry, or the same group.

    Raises:
        FileError: the entry is damaged, or describes another G. The message names what differs.
    """
    group, own = vector.group, _text(GroupRecord.of_group(vector.group))
    text = _characters(_one_of_equals(group.free, stated))
    if text is None or not text.startswith(MARK) or len(text) < HEAD:
        raise _damaged(group.free)
    if len(text) == HEAD:
        if text != _text(GroupRecord.of(vector))[:HEAD]:
            raise _of_file(group.free)
        return group
    if text == own:
        return group
    if text[:HEAD] != _head(text[HEAD:]):
        raise _damaged(group.free)
    there, found = _parsed(group.free, text[HEAD:])
    here, _ = _parsed(group.free, own[HEAD:])
    if (difference := _difference(there, here)) is not None:
        raise FileError(
            f"{group.free!r} in the state_dict belongs to another G: {difference}. {_remedy(there)}"
        )
    if group.drawn is not None:
        group = replace(group, drawn=found.of(group.drawn))
    return group.with_scales(found.multipliers)


def _remedy(there: dict[str, Any]) -> str:
    """How to get a model with the G of a state_dict."""
    if "digest" in there["generator"] or "steps" in there:  # lincon.spec does not describe it
        return (
            "No seed can rebuild that: lincon.save the model that has it, and lincon.load the file "
            "into a fresh one."
        )
    return "Constrain the model in the same way (lincon.constrain_like), then load."


def _tensor(text: str) -> Tensor:
    # A number like others, whatever the default device and mode.
    with torch.inference_mode(False):
        return torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8).to(torch.float16)


def _text(record: GroupRecord) -> str:
    description = record.to_json()
    for row in description["ledger"]:
        row[-1] = _bits(row[-1])
    if record.drawn is not None:  # its checksum follows from the rest
        tensors = [[_bits(value) for value in pair] for pair in record.drawn["tensors"]]
        description["drawn"] = {"seed": record.drawn["seed"], "tensors": tensors}
    body = json.dumps(description, separators=(",", ":"))
    return _head(body) + body


def _head(body: str) -> str:
    return MARK + hashlib.sha256(body.encode()).hexdigest()[: HEAD - len(MARK)]


def _characters(tensor: Tensor) -> str | None:
    """The text of an entry, or None if its values are no characters."""
    if tensor.dim() != 1 or len(tensor) > LONGEST or tensor.is_complex():
        return None
    codes = tensor.detach().cpu().double().round()
    if not bool(((codes >= 0) & (codes < 128)).all()):  # NaN is neither
        return None
    return bytes(codes.to(torch.uint8).tolist()).decode("ascii")


def _one_of_equals(free: str, stated: Tensor) -> Tensor:
    """The entry of one model, from a batch of equal ones that torch.func.vmap reads."""
    functorch = torch._C._functorch
    if not functorch.is_batchedtensor(stated):
        return stated
    entries = functorch.get_unwrapped(stated)
    if not bool((entries == entries[:1]).all()):
        raise FileError(
            f"{free!r} is a stack of free vectors of models whose G differ: constrain all of them "
            "alike (lincon.constrain_like) before you stack them."
        )
    return _one_of_equals(free, entries[0])


def _of_file(free: str) -> FileError:
    return FileError(
        f"{free!r} comes from a model file whose G or W₀ is not that of this model (generator, "
        "options, seed, ledger, multipliers): read the file with lincon.load(model, path)."
    )


def _damaged(free: str) -> FileError:
    return FileError(
        f"What the state_dict says of the G of {free!r} is damaged, or an average over different "
        "G: load the state_dict as it was saved."
    )


class _Found(NamedTuple):
    """What follows from initial weights: multipliers, and means and deviations of a drawn W₀."""

    multipliers: list[float]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def of(self, drawn: Drawn) -> Drawn:
        """W₀ with these means and deviations."""
        return replace(drawn, means=self.means, deviations=self.deviations)


def _parsed(free: str, body: str) -> tuple[dict[str, Any], _Found]:
    """The description without what follows from initial weights, and this."""
    try:
        description: dict[str, Any] = json.loads(body)
        multipliers = [_double(row.pop()) for row in description["ledger"]]
        pairs = description["drawn"].pop("tensors") if "drawn" in description else []
        means, deviations = (tuple(_double(pair[n]) for pair in pairs) for n in (0, 1))
        if pairs and len(pairs) != len(multipliers):
            raise ValueError("W₀ and the ledger do not agree")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise FileError(
            f"What the state_dict says of the G of {free!r} cannot be read ({one_line(error)}): it "
            "is of a newer lincon, or damaged."
        ) from None
    return description, _Found(multipliers, means, deviations)


def _bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def _double(digits: str) -> float:
    (value,) = struct.unpack(">d", bytes.fromhex(digits))
    if not isfinite(value):
        raise ValueError(f"{value} is no multiplier, mean or deviation")
    return float(value)


def _difference(there: Any, here: Any, place: str = "") -> str | None:
    """The first place where two descriptions differ, in words, or None."""
    if there == here:
        return None
    for name, one, other in _pairs(there, here):
        if (difference := _difference(one, other, f"{place}.{name}")) is not None:
            return difference
    return f"{place.lstrip('.')} is {_short(there)} there and {_short(here)} here"


def _pairs(there: Any, here: Any) -> list[tuple[str, Any, Any]]:
    """What lies at the same places in two dictionaries, or in two lists of one length."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [(name, there.get(name), here.get(name)) for name in {**here, **there}]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return [(str(n), *pair) for n, pair in enumerate(zip(there, here, strict=True))]
    return []


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
