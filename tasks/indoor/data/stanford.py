"""Stanford 2D-3D-Semantics (Armeni et al. 2017): 70,496 views of seven scanned areas.

The areas lie in three buildings.
"""

import os
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Float32, Integer, UInt8
from lincon.tasks.experiments.data.expected import check_file, check_folder, elsewhere
from lincon.tasks.experiments.data.listing import entries_of, warn_of_rest
from lincon.tasks.experiments.data.pictures import Unreadable, open_picture
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
FEW = 100  # below so many frames, processes that load cost more than they save

KINDS = {
    "rgb": ("rgb", ("8-bit RGB", "8-bit RGBA")),
    "depth": ("depth", ("16-bit grey",)),
    "normal": ("normals?", ("8-bit RGB",)),
}
"""By folder: the ending of its files' names, and the formats that they may have."""

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
    sampled from the nearest pixel, so no value is invented, not even at edges, and unknown pixels
    stay unknown. At the size of the files, every number is theirs.

    Depth is value / 512 in metres along the optical axis; 65535 means not known, and so does 0, as
    nothing can be at the camera. Normals are value / 127.5 - 1, brought to unit length; (128, 128,
    128) means not known.

    Args:
        frames: which views.
        size: height and width in pixels of what is read.

    Raises:
        LinconError: a size below 1; on reading, by path: a file that is missing or damaged, of
            another format, which would lose depth, not square, or not as large as the others of its
            view; a view without any known depth, or without known normals.
    """

    def __init__(self, frames: Sequence[Frame], size: int) -> None:
        if size < 1:
            raise LinconError(f"frames of size {size} are no pictures: it must be positive.")
        self.frames, self.size = frames, size
        self.workers = min(8, os.cpu_count() or 1) if len(frames) >= FEW else 0

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, indices: list[int]) -> Batch:
        views = [view(self.frames[i], self.size) for i in indices]
        return Batch(*(torch.stack(tensors) for tensors in zip(*views, strict=True)))

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
    axes of the files: x to the right of the picture, y down, z towards the camera. A wall that
    faces a level camera is (0, 0, 1), the floor (0, -1, 0). The axes are left-handed. The paper
    says so (arXiv 1702.01105: "more red to the right", "more green downwards", blue "towards the
    camera"), and so does its author in EPFL-VILAB/omnidata#13; the README has "the same one used by
    NYU RGB-D".

    Args:
        root: the folder with `area_1/` to `area_6/`.
        fold: of the usual cross-validation, 1 to 3: which areas are for training and which for the
            test.
        size: height and width of the views, in pixels.
        train: areas for training, such as ``("1", "5a")``, in place of the fold's.
        test: areas for the test, in place of the fold's.

    Raises:
        LinconError: an area is missing, empty, unknown or named twice; a view lacks one of its
            files, by path.
    """
    if fold not in FOLDS:
        raise LinconError(f"fold {fold} is none of the data set's: choose 1, 2 or 3.")
    is_fold = train is None and test is None
    train = FOLDS[fold][0] if train is None else train
    test = FOLDS[fold][1] if test is None else test
    check_areas(root, (train, test))
    training, testing = frames_in(root, train, size), frames_in(root, test, size)
    split = (
        f"{f'Fold {fold}' if is_fold else 'Areas as asked for, no fold'}: "
        f"{len(testing)} views of {listed(test)} for the test, "
        f"{len(training)} views of {listed(train)} for training."
    )
    return training, testing, split


def frames_in(root: Path, areas: Sequence[str], size: int) -> Frames:
    """The views of some areas."""
    frames = chain.from_iterable(frames_of(folder(root, area)) for area in areas)
    return Frames(list(frames), size)


def folder(root: Path, area: str) -> Path:
    """The folder of an area's views."""
    return root / f"area_{area}" / "data"


def check_areas(root: Path, parts: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """Raise unless both parts have areas, no area is named twice, and none is missing."""
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
    present = [area for area in AREAS if folder(root, area).is_dir()]
    lacking = [area for area in wanted if area not in present]
    if lacking:
        raise LinconError(
            f"{root} lacks {listed(lacking)}, and has {listed(present)}: unpack area_X_no_xyz.tar "
            f"of each there, so that {folder(root, lacking[0])} exists, or name other areas with "
            f"train and test.{elsewhere(root, [f'area_{lacking[0]}/data/'])}"
        )


def listed(areas: Sequence[str]) -> str:
    """The areas in words."""
    return "no area" if not areas else f"area{'s' if len(areas) > 1 else ''} {', '.join(areas)}"


def frames_of(data: Path) -> list[Frame]:
    """The views of one area, whose folder is ``data``.

    Other files beside theirs are left out, with a warning that counts them.
    """
    rest: list[Path] = []
    files = {kind: files_of(data / kind, suffix, rest) for kind, (suffix, _) in KINDS.items()}
    warn_of_rest(data, rest)
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


def files_of(place: Path, suffix: str, rest: list[Path]) -> dict[Name, Path]:
    """The files in ``place`` by the view that they show; what is none of them is added to ``rest``.

    The README has double underscores after the camera and before the suffix, the files have single
    ones. What tools leave behind counts as nothing.
    """
    if not place.exists():
        return {}
    folders, others = entries_of(check_folder(place, "unpack the area's tar again."))
    pattern = re.compile(rf"(camera_.+)_frame_(\d+)_domain__?{suffix}\.png")
    files: dict[Name, Path] = {}
    for path in sorted(folders + others):
        match = pattern.fullmatch(path.name)
        if match is None:
            rest.append(path)
            continue
        check_file(path, "unpack the area's tar again.")
        name = match[1].replace("__", "_"), int(match[2])
        if name in files:
            raise LinconError(
                f"{path} shows the same view as {files[name].name}: remove one of the two."
            )
        files[name] = path
    return files


def view(frame: Frame, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The batch's row of one view: image, depth and normals."""
    picture, *others = pictures_of(frame)
    image = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    places = (2 * np.arange(size) + 1) * picture.width // (2 * size)
    depths, colours = (np.asarray(other)[places[:, None], places] for other in others)
    depth = metres(depths)
    normals = directions(rearrange(colours, "height width xyz -> xyz height width"))
    for path, known in ((frame.depth, depth), (frame.normal, normals)):
        if np.isnan(known).all():
            raise Unreadable(
                f"{path} has no pixel that is known, at {size} x {size}: leave the view out."
            )
    pixels = rearrange(np.array(image), "height width rgb -> rgb height width")
    return torch.from_numpy(pixels), torch.from_numpy(depth), torch.from_numpy(normals)


def pictures_of(frame: Frame) -> list[Image.Image]:
    """The pictures in the three files of a view, square and of one size."""
    formats = [formats for _, formats in KINDS.values()]
    picture, *others = map(load, frame, formats)
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
    return [picture, *others]


def load(path: Path, formats: Sequence[str]) -> Image.Image:
    """A complete PNG of one of ``formats``.

    PIL alone would reduce 16 bits a channel to 8 without a word.
    """
    try:
        with open_picture(path, ["PNG"]) as picture:
            picture.load()
        with path.open("rb") as file:
            *_, bits, colours = file.read(26)  # the header comes first
        actual = f"{bits}-bit {COLOURS[colours]}"
    except Exception as reason:  # a damaged picture can fail in any way
        raise Unreadable(
            f"{path} cannot be read ({reason}): fetch it again, or leave the view out."
        ) from None
    if actual not in formats:
        raise Unreadable(
            f"{path} is {actual}, not {' or '.join(formats)}: fetch it as it was released."
        )
    return picture


def metres(values: Integer[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Depth in metres, nan where not known.

    >>> metres(np.array([512, 1280, 65535], np.uint16)).tolist()
    [1.0, 2.5, nan]
    """
    depth = values.astype(np.float32) / METRE
    depth[(values == UNKNOWN) | (values == 0)] = np.nan
    return depth


def directions(
    colours: UInt8[np.ndarray, "3 ..."],
) -> Float32[np.ndarray, "3 ..."]:
    """Unit vectors, nan where not known."""
    vectors = colours.astype(np.float32) - 127.5  # never 0
    vectors[:, (colours == GREY).all(0)] = np.nan
    unit: np.ndarray = vectors / np.sqrt((vectors**2).sum(0))
    return unit
