"""ObjectNet (Barbu et al. 2019): everyday objects in odd places, a test for models trained on ImageNet.

It may not be trained on. Of its 313 classes 113 overlap with ImageNet's; only these are read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lincon import LinconError
from lincon.tasks.classification.data.folders import ImageFiles, image_files
from lincon.tasks.experiments.choice import choose

K = TypeVar("K")
V = TypeVar("V")

BORDER = 2  # the red frame that marks the images as ObjectNet's
FOLDERS = "folder_to_objectnet_label.json"
OVERLAP = "objectnet_to_imagenet_1k.json"
LINES = "imagenet_to_label_2012_v2"
INDICES = "pytorch_to_imagenet_2012_id.json"

Ids = Sequence[Sequence[int]]
"""For each ObjectNet class, the indices of the ImageNet classes that count as it."""


class ObjectNet(ImageFiles):
    """The images of the classes shared with ImageNet, (n, 3, 224, 224) uint8, without their frame.

    ``names``: labels of the classes, sorted; a label is a place in it. ``mapping``: their ImageNet
    indices. Standardise as ImageNet.

    Args:
        root: the folder `objectnet-1.0`, with images/ and mappings/, or the folder that holds it.

    Raises:
        LinconError: a file is missing or damaged, or the mapping files do not fit together; names
            file and entry.
    """

    def __init__(self, root: Path) -> None:
        inner = root / "objectnet-1.0"
        root = inner if inner.is_dir() else root
        ids = read_mapping(root / "mappings")
        self.names = sorted({label for label, _ in ids.values()})
        self.mapping: Ids = [dict(ids.values())[name] for name in self.names]
        paths: list[Path] = []
        labels: list[int] = []
        for folder, (label, _) in sorted(ids.items()):
            files = image_files(_there(root / "images" / folder))
            paths += files
            labels += [self.names.index(label)] * len(files)
        super().__init__(paths, torch.tensor(labels), crop=224, border=BORDER)


def read_mapping(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """Folder of images -> (ObjectNet label, ImageNet indices), for the classes shared with ImageNet.

    The chain of the four files: a folder has a label; a label has ImageNet labels, joined by "; ";
    an ImageNet label is a line, counted from 0; a line has an index. (Source:
    abarbu/objectnet-template-pytorch.)
    """
    folder_of = _inverted(folder / FOLDERS, _read_texts(folder / FOLDERS))
    index_of, mapping = _index_of_label(folder), {}
    for label, joined in _read_texts(folder / OVERLAP).items():
        parts = joined.split("; ")
        unknown = [part for part in parts if part not in index_of]
        if label not in folder_of:
            raise _misfit(folder / OVERLAP, label, f"is no label in {FOLDERS}")
        if unknown:
            raise _misfit(
                folder / OVERLAP,
                label,
                f"-> {unknown[0]!r} has no line in {LINES}, or no index in {INDICES}",
            )
        mapping[folder_of[label]] = label, [index_of[part] for part in parts]
    return mapping


def _index_of_label(folder: Path) -> dict[str, int]:
    line_of = _indices(folder / INDICES, _read_json(folder / INDICES))
    index_of_line = _inverted(folder / INDICES, line_of)
    lines = _there(folder / LINES).read_text().splitlines()
    return {
        label.strip(): index_of_line[line]
        for line, label in enumerate(lines)
        if line in index_of_line
    }


def _indices(path: Path, line_of: Mapping[str, Any]) -> dict[int, int]:
    for index, line in line_of.items():
        if not (index.isdecimal() and int(index) < 1000 and isinstance(line, int)):
            raise _misfit(
                path,
                index,
                f"-> {line!r} is not from an index of ImageNet's 1,000 to a line number",
            )
    return {int(index): line for index, line in line_of.items()}


def _inverted(path: Path, entries: Mapping[K, V]) -> dict[V, K]:
    inverted: dict[V, K] = {}
    for key, value in entries.items():
        if value in inverted:
            raise _misfit(path, key, f"-> {value!r} is also what {inverted[value]!r} leads to")
        inverted[value] = key
    return inverted


def _misfit(path: Path, entry: object, what: str) -> LinconError:
    return LinconError(f"{path}: entry {entry!r} {what}; fetch the mappings again.")


def _there(path: Path) -> Path:
    if not path.exists():
        raise LinconError(
            f"{path} is missing: pass the folder objectnet-1.0, with images/ and mappings/ in it."
        )
    return path


def _read_json(path: Path) -> dict[str, Any]:
    content = _there(path).read_bytes()
    try:
        return dict(json.loads(content).items())
    except (ValueError, AttributeError) as reason:
        raise LinconError(f"{path} is no JSON object ({reason}): fetch it again.") from None


def _read_texts(path: Path) -> dict[str, str]:
    entries = _read_json(path)
    for key, value in entries.items():
        if not isinstance(value, str):
            raise _misfit(path, key, f"-> {value!r} is no text")
    return entries


def protocol(logits: Tensor, labels: Tensor, mapping: Ids, which: str) -> Tensor:
    """Which predictions count as correct, (n,) bool.

    Args:
        logits: (n, 1000) of a classifier of ImageNet.
        labels: (n,) places in ``mapping``.
        mapping: the ImageNet indices of every ObjectNet class.
        which: "A", the highest of all 1,000 logits must be one of the class's; "B", the highest of
            the logits that any class has; "C", of the classes, each with the highest of its logits,
            the highest must be the true one. B and C make it easier, by several points.

    Raises:
        LinconError: another protocol.
    """
    return choose("protocol", which, _PROTOCOLS)(logits, labels, mapping)


def _among_all(logits: Tensor, labels: Tensor, mapping: Ids) -> Tensor:
    member = torch.zeros(len(mapping), logits.shape[1], dtype=torch.bool, device=logits.device)
    for row, ids in zip(member, mapping, strict=True):
        row[list(ids)] = True
    return member[labels, logits.argmax(dim=1)]


def _among_shared(logits: Tensor, labels: Tensor, mapping: Ids) -> Tensor:
    shared = sorted({i for ids in mapping for i in ids})
    only = torch.full_like(logits, -torch.inf)
    only[:, shared] = logits[:, shared]
    return _among_all(only, labels, mapping)


def _among_classes(logits: Tensor, labels: Tensor, mapping: Ids) -> Tensor:
    highest = torch.stack([logits[:, list(ids)].amax(dim=1) for ids in mapping], dim=1)
    return highest.argmax(dim=1) == labels


_PROTOCOLS: dict[str, Callable[[Tensor, Tensor, Ids], Tensor]] = {
    "A": _among_all,
    "B": _among_shared,
    "C": _among_classes,
}
