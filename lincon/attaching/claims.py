"""The tensors of a model that a ledger names."""

from collections.abc import Iterable

from torch import nn

from lincon.attaching.ledger import Entry
from lincon.attaching.targets import Target, check_target, targets
from lincon.errors import TargetError


def claimed(owner: nn.Module, prefix: str, entries: Iterable[Entry], source: str) -> list[Target]:
    """The tensors of an owner that entries of a ledger name, in the order of the entries.

    Args:
        owner: the module that is to own the free vectors.
        prefix: the prefix of its names in the model, for messages.
        entries: of its ledgers.
        source: where the ledgers come from, for messages.

    Raises:
        TargetError: a tensor is missing or cannot be constrained, or its shape or ties differ.
    """
    present = {name: target for target in targets(owner) for name in target.names}
    return [_claimed(present.get(entry.name), prefix, entry, source) for entry in entries]


def _claimed(target: Target | None, prefix: str, entry: Entry, source: str) -> Target:
    name = prefix + entry.name
    if target is None:
        raise TargetError(f"it has no tensor {name!r} (renamed, or another architecture).")
    check_target(target)
    shape = tuple(target.tensor.shape)
    if shape != entry.shape:
        raise TargetError(f"{name!r} is {entry.shape} in {source} and {shape} here.")
    if set(target.names) != set(entry.names):
        raise TargetError(f"{entry.names} are one tensor in {source}, {target.names} are one here.")
    return target
