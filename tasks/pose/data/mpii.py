"""MPII Human Pose (Andriluka et al. 2014): 25,000 photos of people, sixteen joints each."""

import math
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any, NoReturn

import numpy as np
from scipy.io.matlab import mat_struct

from lincon import LinconError
from lincon.tasks.experiments.data.expected import check_file, check_folder, elsewhere, similar
from lincon.tasks.experiments.data.listing import entries_of
from lincon.tasks.pose.data.matlab import load
from lincon.tasks.pose.data.photos import Person

ANNOTATION = "mpii_human_pose_v1_u12_1.mat"
DETECTIONS = ("detections.mat", "mpii_predictions/data/detections.mat")
INDICES = ("RELEASE_img_index", "RELEASE_person_index")
HEIGHT = 200  # pixels: the height of a person of scale 1
ENLARGED = 1.25  # side of the box, in heights
LOWERED = 15  # pixels at scale 1 by which the box is moved down: usual, so that feet fit in
HEAD = 0.6  # head size of PCKh, as a share of the head box's diagonal
SHARE = 8  # without a list, one photo of so many is for validation

Key = tuple[int, int]
"""A person as annolist(i).annorect(j), counted from 1."""


def read(root: Path) -> tuple[list[Person], list[Person], str]:
    """People for training, people for validation, and a sentence that says how they were divided.

    Only photos with img_train = 1 are used, as the joints of the others are withheld. Everybody who
    has joints, a place and a scale becomes an item; everybody who has joints is shown among the
    other people of the photo. A joint is known if it is annotated, visible or not. The box is the
    usual one: 1.25 x 200 x scale wide, 15 x scale below the annotated centre.

    The file `detections.mat` (of `mpii_valid_pred.zip`) lists the people that Tompson et al. (2015)
    validate on. If it lies in ``root``, they are the validation set, and nobody else in their
    photos is trained on. Otherwise a fixed eighth of the photos is for validation.

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
    people: dict[Key, Person] = {}
    for i, picture in pictures.items():
        people |= {(i, j): person for j, person in annotated(picture, images).items()}
    keys, rule = validation_keys(root, pictures, people)
    validation_photos = {i for i, _ in keys}
    training = [person for (i, _), person in people.items() if i not in validation_photos]
    validation = [person for key, person in people.items() if key in keys]
    if not training or not validation:
        raise LinconError(
            f"{path} leaves {len(training)} people to train and {len(validation)} to validate on: "
            "it takes two photos with people in them."
        )
    split = (
        f"{len(validation)} people for validation, {rule}; "
        f"{len(training)} for training, in other photos."
    )
    return training, validation, split


def validation_keys(
    root: Path, pictures: dict[int, "Entry"], people: dict[Key, Person]
) -> tuple[set[Key], str]:
    """Who is for validation, and the rule in words."""
    for name in DETECTIONS:
        if (root / name).exists():
            check_file(root / name, "fetch it again, or remove it for another split.")
            keys = tompson(root / name, pictures)
            return keys, f"of the {len(keys)} listed in {Path(name).name} (Tompson et al. 2015)"
    absent = "there is no detections.mat (Tompson et al. 2015)"
    return eighth(people), f"in one photo of {SHARE}, chosen by its name, as {absent}"


@dataclass(frozen=True)
class Entry:
    """A MATLAB struct, and its place in the file, which errors name."""

    struct: mat_struct
    place: str

    def refuse(self, problem: str) -> NoReturn:
        raise LinconError(f"{self.place} {problem}: fetch the file again, or correct the entry.")

    def value(self, name: str) -> Any:
        """The content of a field; None if it is missing or empty."""
        value = vars(self.struct).get(name)
        return None if isinstance(value, np.ndarray) and not value.size else value

    def entries(self, name: str) -> list["Entry"]:
        """The structs in a field: several, one that was squeezed, or none if missing or empty."""
        value = self.value(name)
        structs = [] if value is None else np.atleast_1d(np.asarray(value, object)).ravel().tolist()
        entries = []
        for number, struct in enumerate(structs, 1):
            place = f"{self.place}.{name}({number})"
            if not isinstance(struct, mat_struct):
                replace(self, place=place).refuse("is no struct")
            entries.append(Entry(struct, place))
        return entries

    def number(self, name: str) -> float:
        """A field with one finite number."""
        value = self.value(name)
        if value is None:
            self.refuse(f"lacks {name}")
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            self.refuse(f"has {name} = {value!r}, not a finite number")
        return float(value)


def annotation(root: Path) -> Path:
    """The annotation file in ``root`` or one folder further down."""
    remedy = "unpack MPII's annotations there."
    folders = entries_of(root)[0] if root.is_dir() else []
    paths = [place / ANNOTATION for place in (root, *folders) if (place / ANNOTATION).exists()]
    if not paths:
        hint = similar(root / ANNOTATION) + elsewhere(root, [ANNOTATION])
        raise LinconError(f"{ANNOTATION} is neither in {root} nor one folder down: {remedy}{hint}")
    files = [path for path in paths if path.is_file()]
    return files[0] if files else check_file(paths[0], remedy)


def photos_of(root: Path, path: Path) -> Path:
    """The folder of photos, in ``root`` or beside the annotation ``path``."""
    for folder in (root / "images", path.parent / "images"):
        if folder.is_dir():
            return folder
    return check_folder(root / "images", "unpack MPII's photos there.")


def training_pictures(release: Entry) -> dict[int, Entry]:
    """The entries of annolist whose joints are published, by their number."""
    pictures = release.entries("annolist")
    img_train = release.value("img_train")
    flags = np.empty(0) if img_train is None else np.atleast_1d(img_train)
    if len(pictures) != flags.size:
        release.refuse(f"annolist has {len(pictures)} entries, img_train {flags.size}")
    numbered = enumerate(zip(pictures, flags.flat, strict=True), 1)
    return {i: picture for i, (picture, flag) in numbered if flag == 1}


def annotated(picture: Entry, images: Path) -> dict[int, Person]:
    """The people in one photo who have joints, a place and a scale, by their number in annorect."""
    image = images / photo(picture)
    rects = dict(enumerate(picture.entries("annorect"), 1))
    poses = {j: pose for j, rect in rects.items() if np.isfinite(pose := pose_of(rect)).any()}
    people = {}
    for j in poses:
        places, scale = rects[j].entries("objpos"), rects[j].value("scale")
        if places and scale is not None:
            others = [pose for other, pose in poses.items() if other != j]
            joints = np.stack([poses[j], *others])
            known = np.isfinite(joints[..., 0])
            centre, side = box(rects[j], places[0])
            size = head(rects[j])
            people[j] = Person(image, centre, side, np.nan_to_num(joints), known, size)
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
    lists = [annopoints.entries("point") for annopoints in rect.entries("annopoints")]
    for point in chain(*lists):
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
    centre = place.number("x") - 1, place.number("y") - 1 + LOWERED * scale
    return centre, ENLARGED * HEIGHT * scale


def head(rect: Entry) -> float:
    """Head size of PCKh in pixels, nan where there is no head box."""
    corners = "x1", "y1", "x2", "y2"
    if any(rect.value(name) is None for name in corners):
        return math.nan
    left, top, right, bottom = map(rect.number, corners)
    return HEAD * math.hypot(right - left, bottom - top) or math.nan


def tompson(path: Path, pictures: dict[int, Entry]) -> set[Key]:
    """The people that Tompson et al. (2015) validate on."""
    places = list(zip(*tompson_indices(path), strict=True))
    for entry, (i, j) in enumerate(places, 1):
        if i not in pictures or j not in range(1, len(pictures[i].entries("annorect")) + 1):
            raise LinconError(
                f"{path}: entry {entry} is annolist({i:g}).annorect({j:g}), which is nobody in a "
                f"training photo: fetch it and {ANNOTATION} again."
            )
    return {(int(i), int(j)) for i, j in places}


def tompson_indices(path: Path) -> list[list[float]]:
    """Numbers of the photos and numbers of the people in them, equally many."""
    variables = load(path, (*INDICES, "RELEASE"))
    # The indices are variables of their own, or fields of a struct.
    structs = [vars(value) for value in variables.values() if isinstance(value, mat_struct)]
    for holder in (variables, *structs):
        if all(name in holder for name in INDICES):
            break
    else:
        raise LinconError(
            f"{path} lacks {' or '.join(INDICES)}: fetch it again, or remove it for another split."
        )
    photos, people = (np.atleast_1d(holder[name]).ravel() for name in INDICES)
    numeric = all(indices.dtype.kind in "uif" for indices in (photos, people))
    if not numeric or len(photos) != len(people):
        raise LinconError(
            f"{path}: {' and '.join(INDICES)} are not equally many numbers: fetch it again."
        )
    return [photos.tolist(), people.tolist()]


def eighth(people: dict[Key, Person]) -> set[Key]:
    """The people in an eighth of the photos, at least one: the first by a hash of their names."""
    names = sorted({person.image.name for person in people.values()}, key=shuffled)
    chosen = set(names[: max(1, len(names) // SHARE)])
    return {key for key, person in people.items() if person.image.name in chosen}


def shuffled(name: str) -> bytes:
    """The place of a photo in an order that its name alone decides."""
    return blake2b(name.encode(errors="surrogatepass"), key=b"lincon.tasks.pose").digest()
