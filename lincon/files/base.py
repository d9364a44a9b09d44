"""The base of an adapter: the tensors of a model that its file does not hold.

A file of what was trained alone is right only on the model that it was trained on. It holds a
checksum of all other tensors, and three bytes of each one's own, by which those that differ can be
named.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import TypedDict

from torch import Tensor

from lincon.files.description import bytes_of

_SHORT = 3


class BaseJson(TypedDict):
    """The SHA-256 of all tensors of a base, and the first bytes of each tensor's own in base64."""

    sha256: str
    tensors: str


def described(base: Mapping[str, Tensor]) -> BaseJson:
    """The description of tensors by name. Names, dtypes and shapes count as well as values."""
    digests = _digests(base)
    short = b"".join(digest[:_SHORT] for digest in digests.values())
    total = hashlib.sha256(b"".join(digests.values())).hexdigest()
    return BaseJson(sha256=total, tensors=b64encode(short).decode())


def differing(description: BaseJson, here: Mapping[str, Tensor]) -> list[str] | None:
    """Names of tensors that are not in the base of a file; None if all are, and nothing lacks.

    The list is empty where tensors of the file's base are missing here.

    Raises:
        ValueError: the description is damaged.
    """
    short = b64decode(description["tensors"], validate=True)
    if described(here)["sha256"] == description["sha256"]:
        return None
    known = {short[place : place + _SHORT] for place in range(0, len(short), _SHORT)}
    return [name for name, digest in _digests(here).items() if digest[:_SHORT] not in known]


def _digests(base: Mapping[str, Tensor]) -> dict[str, bytes]:
    digests = {}
    for name, tensor in sorted(base.items()):
        sha = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(bytes_of(tensor.detach().cpu()))
        digests[name] = sha.digest()
    return digests
