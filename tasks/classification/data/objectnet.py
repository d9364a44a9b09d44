"""ObjectNet (Barbu et al. 2019): objects in odd places, a test for models of ImageNet.

Its licence forbids training on it. Only those 113 of its 313 classes are read that overlap with
ImageNet's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Bool, Float, Int64
from lincon.tasks.classification.data.folders import ImageFiles
from lincon.tasks.experiments.data.expected import check_file, check_folder
from lincon.tasks.experiments.data.listing import pictures_in, warn_of_rest
from lincon.tasks.experiments.data.remedies import remedy
from lincon.tasks.experiments.names import choose

K = TypeVar("K")
V = TypeVar("V")

BORDER = 2  # the red frame that marks the images as ObjectNet's
FOLDERS = "folder_to_objectnet_label.json"
OVERLAP = "objectnet_to_imagenet_1k.json"
LINES = "imagenet_to_label_2012_v2"
INDICES = "pytorch_to_imagenet_2012_id.json"
WHOLE = "pass the folder objectnet-1.0, with images/ and mappings/ in it."

Ids = Sequence[Sequence[int]]
"""For each ObjectNet class, the indices of the ImageNet classes that count as it."""


class ObjectNet(ImageFiles):
    """The images of the classes shared with ImageNet, (n, 3, 224, 224) uint8, without their frame.

    ``names`` are the names of the classes, sorted; a label is an index into them. ``mapping`` has
    their ImageNet indices. Standardise the images as ImageNet's.

    Args:
        root: the folder `objectnet-1.0`, with images/ and mappings/, or the folder that holds it.

    Raises:
        LinconError: a file is missing or damaged, or the mapping files contradict each other, with
            file and entry.
    """

    def __init__(self, root: Path) -> None:
        check_folder(root, WHOLE)
        inner = root / "objectnet-1.0"
        root = inner if inner.is_dir() else root
        classes = read_mapping(root / "mappings")
        ids_by_name = dict(classes.values())
        self.names = sorted(ids_by_name)
        self.mapping: Ids = [ids_by_name[name] for name in self.names]
        paths: list[Path] = []
        rest: list[Path] = []
        labels: list[int] = []
        for folder, (name, _) in sorted(classes.items()):
            images, others = pictures_in(check_folder(root / "images" / folder, WHOLE))
            paths += images
            rest += others
            labels += [self.names.index(name)] * len(images)
        warn_of_rest(root / "images", rest)
        super().__init__(paths, torch.tensor(labels), crop=224, border=BORDER)


def read_mapping(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """Folder of images -> (ObjectNet label, ImageNet indices), for the shared classes.

    Four files form a chain: a folder has a label; a label has ImageNet labels, joined by "; "; an
    ImageNet label has a line, counted from 0; a line has an index. (Source:
    abarbu/objectnet-template-pytorch.)
    """
    overlap = folder / OVERLAP
    folder_of = _inverted(folder / FOLDERS, _read_texts(folder / FOLDERS))
    index_of = _index_of_label(folder)
    mapping = {}
    for label, joined in _read_texts(overlap).items():
        imagenet_labels = joined.split("; ")
        unknown = [each for each in imagenet_labels if each not in index_of]
        if label not in folder_of:
            raise _misfit(overlap, label, f"is no label in {FOLDERS}")
        if unknown:
            problem = f"-> {unknown[0]!r} has no line in {LINES}, or no index in {INDICES}"
            raise _misfit(overlap, label, problem)
        mapping[folder_of[label]] = label, [index_of[each] for each in imagenet_labels]
    return mapping


def _index_of_label(folder: Path) -> dict[str, int]:
    line_of = _indices(folder / INDICES, _read_json(folder / INDICES))
    index_of_line = _inverted(folder / INDICES, line_of)
    lines = check_file(folder / LINES, WHOLE).read_text().splitlines()
    return {
        label.strip(): index_of_line[line]
        for line, label in enumerate(lines)
        if line in index_of_line
    }


def _indices(path: Path, line_of: Mapping[str, Any]) -> dict[int, int]:
    for index, line in line_of.items():
        if not (index.isdecimal() and int(index) < 1000 and isinstance(line, int)):
            problem = f"-> {line!r} is not from an index of ImageNet's 1,000 to a line number"
            raise _misfit(path, index, problem)
    return {int(index): line for index, line in line_of.items()}


def _inverted(path: Path, entries: Mapping[K, V]) -> dict[V, K]:
    inverted: dict[V, K] = {}
    for key, value in entries.items():
        if value in inverted:
            raise _misfit(path, key, f"-> {value!r} is also what {inverted[value]!r} leads to")
        inverted[value] = key
    return inverted


def _misfit(path: Path, entry: object, problem: str) -> LinconError:
    return LinconError(f"{path}: entry {entry!r} {problem}; fetch the mappings again.")


def _read_json(path: Path) -> dict[str, Any]:
    content = check_file(path, WHOLE).read_bytes()
    try:
        return dict(json.loads(content).items())
    except (ValueError, AttributeError) as reason:
        raise LinconError(
            f"{path} is no JSON object ({reason}): {remedy(content, text=True)}."
        ) from None


def _read_texts(path: Path) -> dict[str, str]:
    entries = _read_json(path)
    for key, value in entries.items():
        if not isinstance(value, str):
            raise _misfit(path, key, f"-> {value!r} is no text")
    return entries


def protocol(
    logits: Float[Tensor, "n imagenet"], labels: Int64[Tensor, " n"], mapping: Ids, which: str
) -> Bool[Tensor, " n"]:
    """Whether each prediction counts as correct.

    Args:
        logits: of a classifier of ImageNet, 1,000 an image.
        labels: indices into ``mapping``.
        mapping: the ImageNet indices of every ObjectNet class.
        which: "A", the highest of all 1,000 logits must belong to the true class; "B", the highest
            of the logits that belong to any class; "C", every class has the highest of its logits,
            and the true class must have the highest of these. B and C make the task easier, by
            several points.

    Raises:
        LinconError: another protocol.

    >>> logits = torch.tensor([[0.0, 1.0, 3.0]])  # the highest belongs to no class
    >>> mapping, labels = [[0], [1]], torch.tensor([1])
    >>> [protocol(logits, labels, mapping, which).item() for which in "ABC"]
    [False, True, True]
    """
    return choose("protocol", which, _PROTOCOLS)(logits, labels, mapping)


def _among_all(logits: Tensor, labels: Tensor, mapping: Ids) -> Tensor:
    member = torch.zeros(len(mapping), logits.shape[1], dtype=torch.bool, device=logits.device)
    for row, ids in zip(member, mapping, strict=True):
        row[list(ids)] = True
    return member[labels, logits.argmax(dim=1)]


def _among_shared(logits: Tensor, labels: Tensor, mapping: Ids) -> Tensor:
    shared = sorted({*chain(*mapping)})
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
