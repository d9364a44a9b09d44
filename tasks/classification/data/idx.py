"""The IDX format (LeCun, MNIST), and Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), which uses it."""

import gzip
import re
import zlib
from collections.abc import Sequence
from io import BufferedReader
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from lincon import LinconError
from lincon.shapes import UInt8
from lincon.tasks.classification.data.images import Images, crop_and_flip
from lincon.tasks.classification.data.sets import InMemory, Labelled
from lincon.tasks.experiments.data.expected import check_folder, elsewhere
from lincon.tasks.experiments.data.listing import entries_of, listed
from lincon.tasks.experiments.data.remedies import remedy

PACKAGE = "dataset-fashion-mnist"
PACKAGED = Path("/usr/share/datasets/fashion-mnist")
"""The folder into which Debian's package puts the files."""

DEFLATED = 1032
"""Most bytes that one byte of a `.gz` can stand for."""

GZIP = b"\x1f\x8b"

COPY = r" ?\(\d+\)| \d+|\.\d+"
"""What browsers, macOS and wget add to the name of another copy."""

REMEDY = (
    f"install Debian's package {PACKAGE}, or pass --root FOLDER with the four files of "
    "Fashion-MNIST."
)

STORED = 28
"""Height and width of the images in the files."""

FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


def read_idx(path: Path, *shape: int | None) -> UInt8[Tensor, "..."]:
    """The tensor of bytes in an IDX file, plain or compressed by gzip, whatever its name says.

    The file has two zero bytes, type 8, the number of dimensions, their sizes as big-endian 32-bit
    integers, then the bytes, last dimension fastest.

    Args:
        path: the file.
        shape: the sizes it must have, None for any.

    Raises:
        LinconError: another type or shape, or not exactly the bytes that the header promises.
    """
    header = 4 + 4 * len(shape)
    try:
        with _opened(path) as file:
            head = file.read(header)
            sizes = [int.from_bytes(head[at : at + 4], "big") for at in range(4, header, 4)]
            magic = bytes((0, 0, 8, len(shape)))
            if head[:4] != magic:
                raise LinconError(
                    f"{path} begins with {head[:4].hex()}, an IDX file of {len(shape)} dimensions "
                    f"of bytes with {magic.hex()}: {_remedy_of(path)}."
                )
            most = DEFLATED * path.stat().st_size
            # One byte more than the header promises shows that a file is too long.
            content = head + file.read(min(prod(sizes) + 1, most))
    except (OSError, EOFError, zlib.error) as reason:
        raise LinconError(f"{path} cannot be read ({reason}): {_remedy_of(path)}.") from None
    promised = header + prod(sizes)
    if len(content) != promised:
        or_more = " or more" if len(content) > promised else ""
        raise LinconError(
            f"{path} has {len(content)} bytes{or_more} where its header promises {promised}: "
            "it is truncated or too long; fetch it again."
        )
    if any(size not in (None, actual) for size, actual in zip(shape, sizes, strict=True)):
        wanted = " x ".join("n" if size is None else str(size) for size in shape)
        raise LinconError(
            f"{path} holds {' x '.join(map(str, sizes))} bytes, not {wanted}: it is another data "
            "set."
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:].view(sizes)


class FashionMNIST(Images):
    """60,000 + 10,000 images of clothes, (1, 28, 28), from ``root`` or from Debian's package.

    Args:
        seed: of the order of the training images.
        batch: images a step.
        root: folder of the four files.
        limit: training images used, a fixed choice; None for all.
        size: height and width; less than 28 averages the pixels under each new one, for less work.

    Raises:
        LinconError: missing or damaged files, or more pixels than the images have.
    """

    name = "fashion-mnist"
    channels = 1
    size = STORED
    classes = 10
    class_names = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    mean = torch.tensor([0.2860])
    std = torch.tensor([0.3530])

    def __init__(
        self,
        seed: int = 0,
        batch: int = 64,
        root: Path | None = None,
        limit: int | None = None,
        *,
        size: int = STORED,
    ) -> None:
        if not 1 <= size <= STORED:
            raise LinconError(f"size is {size}; the images of {self.name} have {STORED} pixels.")
        self.size = size
        super().__init__(seed, batch, root, limit)

    def _read(self, root: Path | None) -> tuple[Labelled, Labelled]:
        paths = _find(PACKAGED if root is None else root)
        return self._part(*paths[:2]), self._part(*paths[2:])

    def _part(self, image_path: Path, label_path: Path) -> Labelled:
        images = read_idx(image_path, None, STORED, STORED)
        labels = read_idx(label_path, None)
        if len(images) != len(labels):
            raise LinconError(
                f"{image_path} holds {len(images)} images, {label_path} {len(labels)} labels: "
                "they do not belong together; fetch both again."
            )
        if len(labels) == 0:
            raise LinconError(f"{label_path} holds no labels: fetch it again.")
        if labels.max() >= self.classes:
            problem = f"a label {labels.max()}, above {self.classes - 1}"
            raise LinconError(f"{label_path} holds {problem}: fetch it again.")
        return InMemory(_averaged(images.unsqueeze(1), self.size), labels.long())

    def _augmentation(self) -> nn.Module:
        return crop_and_flip(self.size, padding=2)


def _averaged(images: UInt8[Tensor, "n 1 _ _"], size: int) -> UInt8[Tensor, "n 1 {size} {size}"]:
    """Images with fewer pixels, each the mean of those that it covers, rounded."""
    if images.shape[-1] == size:
        return images
    return adaptive_avg_pool2d(images.float(), size).round().byte()


def _opened(path: Path) -> BufferedReader | gzip.GzipFile:
    with path.open("rb") as file:
        start = file.read(2)
    # Some browsers unpack a .gz and keep its name.
    is_plain = start == b"\0\0" or (path.suffix != ".gz" and start != GZIP)
    return path.open("rb") if is_plain else gzip.open(path)


def _remedy_of(path: Path) -> str:
    """What to do about a file that is neither IDX nor IDX compressed by gzip."""
    with path.open("rb") as file:
        start = file.read(512)
    return "fetch it again" if start.startswith(GZIP) else remedy(start)


def _find(folder: Path) -> list[Path]:
    """The four files, each plain or compressed, under its own name or one that it is given often.

    `train-images-idx3-ubyte` is also found as `train-images.idx3-ubyte`, as a browser's copy
    `train-images-idx3-ubyte (1).gz`, and in a folder of its name, as Kaggle has it.
    """
    check_folder(folder, REMEDY)
    found = {name: _choices(folder, name) for name in FILES}
    missing = [f"{name}[.gz]" for name, choices in found.items() if not choices]
    if missing:
        hint = elsewhere(folder, [*FILES, *(f"{name}.gz" for name in FILES)])
        near = _similar(folder, [path for choices in found.values() for path in choices])
        raise LinconError(f"{folder} lacks {', '.join(missing)}: {REMEDY}{near}{hint}")
    return [_only(name, choices) for name, choices in found.items()]


def _choices(folder: Path, name: str) -> list[Path]:
    """The files that ``name`` may stand for, the most certain first."""
    pattern = re.compile(rf"{name.replace('-idx', '[-.]idx')}({COPY})?(\.gz)?({COPY})?", re.I)
    folders, files = entries_of(folder)
    for inner in folders:
        if pattern.fullmatch(inner.name):
            files += entries_of(inner)[1]
    matching = [path for path in files if pattern.fullmatch(path.name)]
    exact = [path for path in matching if path.name in (name, f"{name}.gz")]
    originals = [path for path in matching if not re.search(rf"({COPY})(\.gz)?$", path.name)]
    return exact or originals or matching


def _only(name: str, choices: list[Path]) -> Path:
    """The first of the choices; numbered copies may differ, so that there must be one of them."""
    is_copy = re.search(rf"({COPY})(\.gz)?$", choices[0].name)
    if is_copy and len(choices) > 1:
        names = ", ".join(path.name for path in choices)
        raise LinconError(
            f"{choices[0].parent} has several copies of {name}: {names}; remove all but one."
        )
    return choices[0]


def _similar(folder: Path, found: Sequence[Path]) -> str:
    """A sentence with further files whose names are somewhat like those that are looked for."""
    files = [path for path in entries_of(folder)[1] if path not in found]
    names = [path for path in files if re.search("idx|ubyte", path.name, re.I)]
    return f" Similar names there: {listed(folder, names)}." if names else ""
