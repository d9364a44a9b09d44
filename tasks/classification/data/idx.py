"""The IDX format (LeCun, MNIST), and Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), which uses it."""

import gzip
import zlib
from math import prod
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from lincon import LinconError
from lincon.tasks.classification.data.images import Images, crop_and_flip
from lincon.tasks.classification.data.sets import InMemory, Labelled

PACKAGE = "dataset-fashion-mnist"
PACKAGED = Path("/usr/share/datasets/fashion-mnist")
"""The folder into which Debian's package puts the files."""

DEFLATED = 1032
"""Most bytes that one byte of a `.gz` can stand for."""

FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)


def read_idx(path: Path, *shape: int | None) -> UInt8[Tensor, "..."]:
    """The tensor of bytes in an IDX file, plain or `.gz`.

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
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(header)
            sizes = [int.from_bytes(head[at : at + 4], "big") for at in range(4, header, 4)]
            magic = bytes((0, 0, 8, len(shape)))
            if head[:4] != magic:
                raise LinconError(
                    f"{path} begins with {head[:4].hex()}, an IDX file of {len(shape)} dimensions "
                    f"of bytes with {magic.hex()}: fetch it again."
                )
            most = DEFLATED * path.stat().st_size
            # One byte more than the header promises shows that a file is too long.
            content = head + file.read(min(prod(sizes) + 1, most))
    except (OSError, EOFError, zlib.error) as reason:
        raise LinconError(f"{path} cannot be read ({reason}): fetch it again.") from None
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
    """60,000 + 10,000 images of clothes, (1, 28, 28), from ``root`` or from Debian's package."""

    name = "fashion-mnist"
    channels = 1
    classes = 10
    size = 28
    mean = torch.tensor([0.2860])
    std = torch.tensor([0.3530])

    def _read(self, root: Path | None) -> tuple[Labelled, Labelled]:
        paths = _find(PACKAGED if root is None else root)
        return self._part(*paths[:2]), self._part(*paths[2:])

    def _part(self, image_path: Path, label_path: Path) -> Labelled:
        images = read_idx(image_path, None, self.size, self.size)
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
        return InMemory(images.unsqueeze(1), labels.long())

    def _augmentation(self) -> nn.Module:
        return crop_and_flip(self.size, padding=2)


def _find(folder: Path) -> list[Path]:
    """The four files, each plain or compressed."""
    paths: list[Path] = []
    missing: list[str] = []
    for name in FILES:
        choices = folder / name, folder / f"{name}.gz"
        existing = [path for path in choices if path.exists()]
        if existing:
            paths.append(existing[0])
        else:
            missing.append(f"{name}[.gz]")
    if missing:
        raise LinconError(
            f"{folder} lacks {', '.join(missing)}: install Debian's package {PACKAGE}, or pass "
            "--root FOLDER with the four files of Fashion-MNIST."
        )
    return paths
