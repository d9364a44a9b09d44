"""Stanford 2D-3D-Semantics (Armeni et al. 2017): 70,496 views of seven areas in three buildings, drawn from scans."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lincon import LinconError
from lincon.tasks.experiments.data.pictures import Unreadable, opened
from lincon.tasks.experiments.data.sets import Split
from lincon.tasks.indoor.data.batch import Batch

FOLDS = {
    1: (("1", "2", "3", "4", "6"), ("5a", "5b")),
    2: (("1", "3", "5a", "5b", "6"), ("2", "4")),
    3: (("2", "4", "5a", "5b"), ("1", "3", "6")),
}
"""Areas for training and for the test; no building is in both."""

AREAS = ("1", "2", "3", "4", "5a", "5b", "6")
METRE = 512  # steps of depth
UNKNOWN = 65535  # depth that is missing
GREY = 128  # in all three channels: a normal that is missing
FEW = 100  # frames that are not worth starting processes for

KINDS = {
    "rgb": ("rgb", ("8-bit RGB", "8-bit RGBA")),
    "depth": ("depth", ("16-bit grey",)),
    "normal": ("normals?", ("8-bit RGB",)),
}
"""By folder: how the names of its files end, and the formats that they may have."""

COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}  # PNG's colour types

Name = tuple[str, int]
"""Camera and room as in the file's name, and the number of the frame."""


class Frame(NamedTuple):
    """The three files of one view, in the order of `KINDS`."""

    rgb: Path
    depth: Path
    normal: Path


class Frames(Split):
    """Views on disk, read when they are asked for: ``frames[indices]`` is the batch of those views.

    Images are resampled with a filter that is as wide as their reduction. Depth and normals are
    sampled: every pixel is the one of the file that its centre lies in, so no value is there that
    the file does not hold, at edges least of all, and what is not known stays unknown. At the size
    of the files, every number is theirs.

    Depth is value / 512 in metres along the optical axis; 65535 is not known, and neither is 0, at
    which nothing can be. Normals are value / 127.5 - 1, brought to unit length; (128, 128, 128) is
    not known.

    Args:
        frames: which views.
        size: height and width in pixels of what is read.

    Raises:
        LinconError: a size below 1; on reading, by path: a file that is missing or damaged, or of
            another format, which would lose depth; that is not square or not as large as the others
            of its view; a view in which nothing is known of depth or of normals.
    """

    def __init__(self, frames: Sequence[Frame], size: int) -> None:
        if size < 1:
            raise LinconError(f"frames of size {size} are no pictures: it must be positive.")
        self.frames, self.size = frames, size
        self.workers = min(8, os.cpu_count() or 1) if len(frames) >= FEW else 0

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, indices: list[int]) -> Batch:
        return Batch(
            *map(torch.stack, zip(*(view(self.frames[i], self.size) for i in indices), strict=True))
        )

    def subset(self, indices: Tensor) -> "Frames":
        """The views at ``indices`` alone."""
        return Frames([self.frames[i] for i in indices.tolist()], self.size)


def read(
    root: Path,
    fold: int = 1,
    *,
    size: int = 256,
    train: tuple[str, ...] | None = None,
    test: tuple[str, ...] | None = None,
) -> tuple[Frames, Frames, str]:
    """Views for training, views for the test, and a sentence that says which areas they are of.

    The views are those in `area_*/data/`, in the order of camera, room and frame. Normals keep the
    axes of the files: x to the right of the picture, y down, z towards the camera, so that a wall
    which faces a level camera is (0, 0, 1) and the floor (0, -1, 0). The axes are left-handed. The
    paper says so (arXiv 1702.01105: "more red to the right", "more green downwards", blue "towards
    the camera"), and so does its author in EPFL-VILAB/omnidata#13; the README has "the same one
    used by NYU RGB-D".

    Args:
        root: the folder with `area_1/` to `area_6/`.
        fold: of the usual cross-validation, 1 to 3: which areas are for training and which for the
            test.
        size: height and width of the views, in pixels.
        train: areas for training, such as ``("1", "5a")``, in place of the fold's.
        test: areas for the test, in place of the fold's.

    Raises:
        LinconError: an area is not there, is empty, is no area of the data set, or is named twice;
            a view lacks one of its files, by path.
    """
    if fold not in FOLDS:
        raise LinconError(f"fold {fold} is none of the data set's: choose 1, 2 or 3.")
    parts = (FOLDS[fold][0] if train is None else train, FOLDS[fold][1] if test is None else test)
    check_areas(root, parts)
    training, testing = (
        Frames([f for area in part for f in frames_of(folder(root, area))], size) for part in parts
    )
    what = f"Fold {fold}" if train is None and test is None else "Areas as asked for, no fold"
    counts = [
        f"{len(n)} views of {listed(part)}"
        for n, part in zip((training, testing), parts, strict=True)
    ]
    return training, testing, f"{what}: {counts[1]} for the test, {counts[0]} for training."


def folder(root: Path, area: str) -> Path:
    """Where the views of an area are."""
    return root / f"area_{area}" / "data"


def check_areas(root: Path, parts: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """Raise unless both parts have areas, every area is in one part alone, and all of them are there."""
    wanted = parts[0] + parts[1]
    strange = [area for area in wanted if area not in AREAS]
    if strange:
        raise LinconError(
            f"there is no {listed(strange)} in 2D-3D-Semantics: choose from {', '.join(AREAS)}."
        )
    if not all(parts) or len(set(wanted)) < len(wanted):
        raise LinconError(
            f"training on {listed(parts[0])} and testing on {listed(parts[1])}: name one area or "
            "more for each, and none of them twice."
        )
    there = [area for area in AREAS if folder(root, area).is_dir()]
    lacking = [area for area in wanted if area not in there]
    if lacking:
        raise LinconError(
            f"{root} lacks {listed(lacking)}, and has {listed(there)}: unpack area_X_no_xyz.tar "
            f"of each there, so that {folder(root, lacking[0])} exists, or name other areas with "
            "train and test."
        )


def listed(areas: Sequence[str]) -> str:
    """The areas in words."""
    return "no area" if not areas else f"area{'s' if len(areas) > 1 else ''} {', '.join(areas)}"


def frames_of(data: Path) -> list[Frame]:
    """The views of one area, whose folder is ``data``."""
    files = {kind: files_of(data / kind, suffix) for kind, (suffix, _) in KINDS.items()}
    names = sorted(set().union(*files.values()))
    if not names:
        raise LinconError(
            f"{data} holds no views (camera_*_frame_*_domain_rgb.png in rgb/): unpack its tar "
            "again."
        )
    for kind, (suffix, _) in KINDS.items():
        lacking = [name for name in names if name not in files[kind]]
        if lacking:
            frame = "{}_frame_{}".format(*lacking[0])
            path = data / kind / f"{frame}_domain_{suffix.rstrip('?')}.png"
            raise LinconError(
                f"{path} is missing, though {frame} has other files; {len(lacking)} of "
                f"{len(names)} views lack theirs in {kind}/: unpack the area's tar again, or "
                "remove what is left of them."
            )
    return [Frame(*(files[kind][name] for kind in KINDS)) for name in names]


def files_of(place: Path, suffix: str) -> dict[Name, Path]:
    """The files in ``place`` by the view that they show; all others there, hidden ones among them, are left alone.

    The README has double underscores after the camera and before the suffix, the files have single
    ones.
    """
    pattern = re.compile(rf"(camera_.+)_frame_(\d+)_domain__?{suffix}\.png")
    found: dict[Name, Path] = {}
    for file in sorted(os.listdir(place)) if place.is_dir() else ():
        if match := pattern.fullmatch(file):
            name = match[1].replace("__", "_"), int(match[2])
            if name in found:
                raise LinconError(
                    f"{place / file} shows the same view as {found[name].name}: remove one of the "
                    "two."
                )
            found[name] = place / file
    return found


def view(frame: Frame, size: int) -> Batch:
    """The batch's row of one view."""
    picture, *others = (
        load(path, formats) for path, (_, formats) in zip(frame, KINDS.values(), strict=True)
    )
    width, height = picture.size
    for path, other in zip(frame[1:], others, strict=True):
        if other.size != picture.size:
            raise Unreadable(
                f"{path} has {other.width} x {other.height} pixels, {frame.rgb.name} {width} x "
                f"{height}: fetch both again, or leave the view out."
            )
    if width != height:
        raise Unreadable(
            f"{frame.rgb} has {width} x {height} pixels, and must be square: leave the view out."
        )
    image = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    places = (2 * np.arange(size) + 1) * width // (2 * size)
    depths, colours = (np.asarray(other)[places[:, None], places] for other in others)
    depth, normals = metres(depths), directions(colours.transpose(2, 0, 1))
    for path, known in ((frame.depth, depth), (frame.normal, normals)):
        if np.isnan(known).all():
            raise Unreadable(
                f"{path} has no pixel that is known, at {size} x {size}: leave the view out."
            )
    return Batch(*map(torch.from_numpy, (np.array(image).transpose(2, 0, 1), depth, normals)))


def load(path: Path, formats: Sequence[str]) -> Image.Image:
    """A PNG that is whole and of one of ``formats``; PIL alone would bring 16 bits a channel to 8 and say nothing."""
    try:
        with opened(path, ["PNG"]) as picture:
            picture.load()
        with path.open("rb") as file:
            *_, bits, colours = file.read(26)  # of the header, which comes first
        found = f"{bits}-bit {COLOURS[colours]}"
    except Exception as reason:  # a damaged picture can fail in any way
        raise Unreadable(
            f"{path} cannot be read ({reason}): fetch it again, or leave the view out."
        ) from None
    if found not in formats:
        raise Unreadable(
            f"{path} is {found}, not {' or '.join(formats)}: fetch it as it was released."
        )
    return picture


def metres(values: np.ndarray) -> np.ndarray:
    """uint16 -> float32: depth, nan where not known."""
    depth = values.astype(np.float32) / METRE
    depth[(values == UNKNOWN) | (values == 0)] = np.nan
    return depth


def directions(colours: np.ndarray) -> np.ndarray:
    """(3, height, width) uint8 -> float32: unit vectors, nan where not known."""
    vectors = colours.astype(np.float32) - 127.5  # never 0
    vectors[:, (colours == GREY).all(0)] = np.nan
    return vectors / np.sqrt((vectors**2).sum(0))
