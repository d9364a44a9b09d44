"""MPII Human Pose (Andriluka et al. 2014): 25,000 photos of people at 410 activities, sixteen joints each."""

import math
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

import numpy as np
from scipy.io.matlab import mat_struct

from lincon import LinconError
from lincon.tasks.pose.data.matlab import load
from lincon.tasks.pose.data.photos import Person

ANNOTATION = "mpii_human_pose_v1_u12_1.mat"
DETECTIONS = ("detections.mat", "mpii_predictions/data/detections.mat")
INDICES = ("RELEASE_img_index", "RELEASE_person_index")
HEIGHT = 200  # pixels that a person of scale 1 is high
ENLARGED = 1.25  # the box, in heights
LOWERED = 15  # its centre below the annotated one, in pixels at scale 1: usual, so that feet fit in
HEAD = 0.6  # of the head box's diagonal, the head size of PCKh
SHARE = 8  # one photo of so many is for validation where no list says which

Key = tuple[int, int]
"""A person as annolist(i).annorect(j), counted from 1."""


def read(root: Path) -> tuple[list[Person], list[Person], str]:
    """People for training, people for validation, and a sentence that says how they were divided.

    Only photos with img_train = 1 are used, as the joints of the others are withheld. A person is
    read who has joints, a place and a scale; everybody with joints is among the others of their
    photo. A joint is known if it is annotated, visible or not. The box is the usual one: 1.25 x 200
    x scale wide, 15 x scale below the annotated centre.

    The people that Tompson et al. (2015) validate on are listed in their `detections.mat` (of
    `mpii_valid_pred.zip`). Where it lies in ``root``, they are the validation set, and nobody else
    in their photos is trained on. Where it does not, a fixed eighth of the photos is for
    validation.

    Args:
        root: the folder with `images/` and `mpii_human_pose_v1_u12_1.mat`, which may lie one folder
            further down.

    Raises:
        LinconError: a file is missing, or an entry of it is broken, by its place as in MATLAB.
    """
    path = annotation(root)
    images = photos_of(root, path)
    release = load(path, ("RELEASE",)).get("RELEASE")
    if not isinstance(release, mat_struct):
        raise LinconError(f"{path} holds no struct RELEASE: fetch it again.")
    pictures = training_pictures(Entry(release, f"{path}: RELEASE"))
    people = {
        (i, j): person
        for i, picture in pictures.items()
        for j, person in annotated(picture, images).items()
    }
    found = next((root / name for name in DETECTIONS if (root / name).is_file()), None)
    keys = tompson(found, pictures) if found else eighth(people)
    taken = {i for i, _ in keys}
    training = [person for (i, _), person in people.items() if i not in taken]
    validation = [person for key, person in people.items() if key in keys]
    if not training or not validation:
        raise LinconError(
            f"{path} leaves {len(training)} people to train and {len(validation)} to validate on: "
            "it takes two photos with people in them."
        )
    if found:
        rule = f"of the {len(keys)} listed in {found.name} (Tompson et al. 2015)"
    else:
        rule = f"in one photo of {SHARE}, chosen by its name, as there is no detections.mat (Tompson et al. 2015)"
    split = f"{len(validation)} people for validation, {rule}; {len(training)} for training, in other photos."
    return training, validation, split


@dataclass(frozen=True)
class Entry:
    """A MATLAB struct, and its place in the file, which errors name."""

    struct: mat_struct
    place: str

    def refuse(self, problem: str) -> NoReturn:
        raise LinconError(f"{self.place} {problem}: fetch the file again, or correct the entry.")

    def value(self, name: str) -> Any:
        """What a field holds, None where it is missing or empty."""
        value = vars(self.struct).get(name)
        return None if isinstance(value, np.ndarray) and not value.size else value

    def entries(self, name: str) -> list["Entry"]:
        """The structs in a field: several, one that was squeezed, or none where it is missing or empty."""
        value = self.value(name)
        structs = [] if value is None else np.atleast_1d(np.asarray(value, object)).ravel().tolist()
        entries = [
            Entry(struct, f"{self.place}.{name}({number})")
            for number, struct in enumerate(structs, 1)
        ]
        for entry in entries:
            if not isinstance(entry.struct, mat_struct):
                entry.refuse("is no struct")
        return entries

    def number(self, name: str) -> float:
        """A field with one finite number."""
        value = self.value(name)
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            self.refuse(
                f"has {name} = {value!r}, not a finite number"
                if value is not None
                else f"lacks {name}"
            )
        return float(value)


def annotation(root: Path) -> Path:
    """The annotation file in ``root`` or one folder further down."""
    paths = [
        path
        for path in (root / ANNOTATION, *sorted(root.glob(f"*/{ANNOTATION}")))
        if path.is_file()
    ]
    if not paths:
        raise LinconError(
            f"{ANNOTATION} is neither in {root} nor one folder down: unpack MPII's annotations "
            "there."
        )
    return paths[0]


def photos_of(root: Path, path: Path) -> Path:
    """The folder of photos, in ``root`` or beside the annotation ``path``."""
    folders = [folder for folder in (root / "images", path.parent / "images") if folder.is_dir()]
    if not folders:
        raise LinconError(f"{root / 'images'} is missing: unpack MPII's photos there.")
    return folders[0]


def training_pictures(release: Entry) -> dict[int, Entry]:
    """The entries of annolist whose joints are given, by their number."""
    pictures = release.entries("annolist")
    train = (
        np.atleast_1d(release.value("img_train"))
        if release.value("img_train") is not None
        else np.empty(0)
    )
    if len(pictures) != train.size:
        release.refuse(f"annolist has {len(pictures)} entries, img_train {train.size}")
    return {
        i: picture
        for i, (picture, flag) in enumerate(zip(pictures, train.flat, strict=True), 1)
        if flag == 1
    }


def annotated(picture: Entry, images: Path) -> dict[int, Person]:
    """The people in one photo who have joints, a place and a scale, by their number in annorect."""
    image = images / photo(picture)
    rects = dict(enumerate(picture.entries("annorect"), 1))
    poses = {j: pose for j, rect in rects.items() if np.isfinite(pose := pose_of(rect)).any()}
    people = {}
    for j in poses:
        places, scale = rects[j].entries("objpos"), rects[j].value("scale")
        if places and scale is not None:
            joints = np.stack([poses[j], *(pose for other, pose in poses.items() if other != j)])
            known = np.isfinite(joints[..., 0])
            people[j] = Person(
                image, *box(rects[j], places[0]), np.nan_to_num(joints), known, head(rects[j])
            )
    return people


def photo(picture: Entry) -> str:
    """The file name of the photo; a path that leads elsewhere is refused."""
    name = next((image.value("name") for image in picture.entries("image")), None)
    if not isinstance(name, str):
        picture.refuse("has no text in image.name")
    if name == ".." or PureWindowsPath(name).name != name:
        picture.refuse(f"has image.name = {name!r}, which is no plain file name")
    return name


def pose_of(rect: Entry) -> np.ndarray:
    """Joints (16, 2) in pixels from 0, nan where not annotated."""
    joints = np.full((16, 2), np.nan)
    for point in (
        point for points in rect.entries("annopoints") for point in points.entries("point")
    ):
        joint = point.number("id")
        if joint not in range(16):
            point.refuse(f"has id = {joint:g}, which is not one of 0 to 15")
        if np.isfinite(joints[int(joint), 0]):
            point.refuse(f"has id = {joint:g}, which an earlier point has")
        joints[int(joint)] = point.number("x") - 1, point.number("y") - 1
    return joints


def box(rect: Entry, place: Entry) -> tuple[tuple[float, float], float]:
    """Centre, in pixels from 0, and side of the square around a person."""
    scale = rect.number("scale")
    if scale <= 0:
        rect.refuse(f"has scale = {scale:g}, which is not positive")
    return (
        place.number("x") - 1,
        place.number("y") - 1 + LOWERED * scale,
    ), ENLARGED * HEIGHT * scale


def head(rect: Entry) -> float:
    """Head size of PCKh in pixels, nan where there is no head box."""
    if any(rect.value(name) is None for name in ("x1", "y1", "x2", "y2")):
        return math.nan
    diagonal = math.hypot(
        rect.number("x2") - rect.number("x1"), rect.number("y2") - rect.number("y1")
    )
    return HEAD * diagonal or math.nan


def tompson(path: Path, pictures: dict[int, Entry]) -> set[Key]:
    """The validation people of Tompson et al. 2015."""
    content = load(path, (*INDICES, "RELEASE"))
    holders = [
        content,
        *(vars(value) for value in content.values() if isinstance(value, mat_struct)),
    ]
    holder = next((holder for holder in holders if all(name in holder for name in INDICES)), None)
    if holder is None:
        raise LinconError(
            f"{path} lacks {' or '.join(INDICES)}: fetch it again, or remove it for another split."
        )
    indices = [np.atleast_1d(holder[name]).ravel() for name in INDICES]
    if len(indices[0]) != len(indices[1]) or any(
        array.dtype.kind not in "uif" for array in indices
    ):
        raise LinconError(
            f"{path}: {' and '.join(INDICES)} are not equally many numbers: fetch it again."
        )
    keys = list(zip(*(array.tolist() for array in indices), strict=True))
    for place, (i, j) in enumerate(keys, 1):
        if i not in pictures or j not in range(1, len(pictures[i].entries("annorect")) + 1):
            raise LinconError(
                f"{path}: entry {place} is annolist({i:g}).annorect({j:g}), which is nobody in a "
                f"training photo: fetch it and {ANNOTATION} again."
            )
    return {(int(i), int(j)) for i, j in keys}


def eighth(people: dict[Key, Person]) -> set[Key]:
    """The people in every eighth photo, in the order of a hash of the photos' names; at least in one."""
    names = sorted({person.image.name for person in people.values()}, key=shuffled)
    chosen = set(names[: max(1, len(names) // SHARE)])
    return {key for key, person in people.items() if person.image.name in chosen}


def shuffled(name: str) -> bytes:
    """The place of a photo in an order that its name alone decides."""
    return blake2b(name.encode(errors="surrogatepass"), key=b"lincon.tasks.pose").digest()
