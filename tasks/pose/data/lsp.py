"""Leeds Sports Pose (Johnson and Everingham 2010), and its extended training set (2011).

Each photo shows one person.
"""

import math
from pathlib import Path

import numpy as np

from lincon import LinconError
from lincon.tasks.experiments.data.expected import check_file, elsewhere
from lincon.tasks.pose.data.matlab import load
from lincon.tasks.pose.data.photos import Person

JOINTS = (*range(6), *range(10, 16), 8, 9)
"""For each of LSP's fourteen joints, its place in `skeleton.JOINTS`."""
NECK, TOP = 8, 9
PEOPLE = 2000  # the first half is for training
ENLARGED = (
    1.25  # side of the box in extents of the joints: MPII's, whose scale is a person's height
)
HEAD = 0.6 * math.hypot(1, 2 / 3)  # head size, in lengths from neck to head top


def read(root: Path, extended: bool = False) -> tuple[list[Person], list[Person], str]:
    """People for training, people for validation, and a sentence that says how they were divided.

    LSP's first 1000 people are for training, its last 1000 for validation; all of LSPET is for
    training. LSP annotates hidden joints too; LSPET does not. Pelvis and thorax are never known.

    The box is 1.25 x the larger extent of the known joints, around their middle. A person of whom
    fewer than two joints are known is left out. There is no head box: the head size is that of a
    box as high as the distance from neck to head top, and two thirds as wide, so PCKh differs from
    MPII's. Coordinates count from 1, as in MATLAB and as Wei et al. (2016) read them; the data set
    does not say.

    Args:
        root: the folder with `lsp_dataset/` (joints.mat and images/) and, if ``extended``,
            `lspet_dataset/`.
        extended: train on LSPET as well.

    Raises:
        LinconError: a file is missing or does not hold what it should, by name.
    """
    folder = root / "lsp_dataset"
    joints, _ = annotations(folder)
    if len(joints) != PEOPLE:
        raise LinconError(
            f"{folder / 'joints.mat'} holds {len(joints)} people, not {PEOPLE}: fetch it again."
        )
    half, everything = PEOPLE // 2, np.ones((PEOPLE // 2, 14), bool)
    training = persons(folder, "im{:04d}.jpg", joints[:half], everything)
    validation = persons(folder, "im{:04d}.jpg", joints[half:], everything, first=half + 1)
    if extended:
        folder = root / "lspet_dataset"
        joints, visible = annotations(folder)
        training += persons(folder, "im{:05d}.jpg", joints, visible == 1)
    source = "the first of LSP, and LSPET" if extended else "the first of LSP"
    split = (
        f"{len(validation)} people for validation, the last of LSP; "
        f"{len(training)} for training, {source}."
    )
    return training, validation, split


def annotations(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Joints (n, 14, 2) as the file has them, and their flags (n, 14).

    LSP's file is (3, 14, n), LSPET's (14, 3, n).
    """
    path = folder / "joints.mat"
    hint = "" if path.exists() else elsewhere(folder.parent, [f"{folder.name}/joints.mat"])
    check_file(path, f"unpack {folder.name}.zip so that it lies there.{hint}")
    joints = np.atleast_3d(load(path, ("joints",)).get("joints", np.empty(0)))
    if joints.shape[:2] not in ((3, 14), (14, 3)) or joints.dtype.kind not in "iuf":
        raise LinconError(
            f"{path} has joints of {joints.dtype} {joints.shape}, not (3, 14, n) or (14, 3, n) "
            "numbers."
        )
    by_person = joints.transpose((2, 1, 0) if joints.shape[0] == 3 else (2, 0, 1)).astype(float)
    return by_person[..., :2], by_person[..., 2]


def persons(
    folder: Path, name: str, joints: np.ndarray, known: np.ndarray, first: int = 1
) -> list[Person]:
    """The people of one folder, of whom at least two joints are known.

    Args:
        name: of the photos, with a place for their number.
        joints: (n, 14, 2), pixels, counted from 1.
        known: (n, 14), bool.
        first: number of the first photo.
    """
    names = [name.format(number) for number in range(first, first + len(joints))]
    broken = (known & ~np.isfinite(joints).all(2)).any(1)
    if broken.any():
        where = names[int(broken.argmax())]
        raise LinconError(
            f"{folder / 'joints.mat'}: the joints of {where} are not finite numbers: fetch it "
            "again."
        )
    poses = np.full((len(joints), 16, 2), np.nan)
    poses[:, JOINTS] = np.where(known[..., None], joints - 1, np.nan)
    return [
        person(folder / "images" / photo, pose)
        for photo, pose in zip(names, poses, strict=True)
        if extent(pose) > 0
    ]


def extent(pose: np.ndarray) -> float:
    """The larger side of the box around the known joints of ``pose`` (16, 2); 0 if there are none.

    >>> pose = np.full((16, 2), np.nan)
    >>> pose[0], pose[9] = (10, 80), (30, 20)
    >>> extent(pose)
    60.0
    """
    known = pose[np.isfinite(pose[:, 0])]
    return float(np.ptp(known, axis=0).max()) if len(known) else 0.0


def person(image: Path, pose: np.ndarray) -> Person:
    """The person with the joints ``pose`` (16, 2), pixels from 0, nan where not known."""
    x, y = ((np.nanmin(pose, axis=0) + np.nanmax(pose, axis=0)) / 2).tolist()
    head = HEAD * float(np.hypot(*(pose[TOP] - pose[NECK]))) or math.nan
    joints = pose[None]
    known = np.isfinite(joints[..., 0])
    return Person(image, (x, y), ENLARGED * extent(pose), np.nan_to_num(joints), known, head)
