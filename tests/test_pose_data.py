"""Photos of people: official annotations read to the joint, crops to the pixel, damage refused by its place."""

import copy
import math
import traceback

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from torch.utils.data import DataLoader

from lincon import LinconError
from lincon.tasks.pose.data import lsp, mpii
from lincon.tasks.pose.data.photos import Person, Photos
from lincon.tasks.pose.skeleton import JOINTS

EMPTY = np.zeros((0, 0))


# Photos.


def person(image, centre=(50.0, 40.0), side=40.0, joints=((50.0, 40.0),), head=8.0):
    """Somebody whose first joints are the given ones, alone in the photo."""
    all_joints, known = np.zeros((1, 16, 2)), np.zeros((1, 16), bool)
    all_joints[0, : len(joints)], known[0, : len(joints)] = np.reshape(joints, (-1, 2)), True
    return Person(image, centre, side, all_joints, known, head)


def beside(first, *others):
    """The first person with the others in the photo."""
    everybody = (first, *others)
    joints, known = (
        np.concatenate([getattr(p, name) for p in everybody]) for name in ("joints", "known")
    )
    return Person(first.image, first.centre, first.side, joints, known, first.head)


def write_image(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def middle(image):
    """Where the light of an image (3, h, w) is on average, and how much there is."""
    light = image.double().mean(0)
    ys, xs = torch.meshgrid(*(torch.arange(n).double() for n in light.shape), indexing="ij")
    return (
        ((xs * light).sum() / light.sum()).item(),
        ((ys * light).sum() / light.sum()).item(),
        light.sum().item(),
    )


@pytest.mark.parametrize("margin", [1.0, 1.25, 0.7])
@pytest.mark.parametrize("side", [16.0, 31.7, 64.0, 250.0, 900.3])
def test_a_dot_at_a_joint_lands_at_the_mapped_joint(tmp_path, side, margin):
    dot, radius = (410, 283), max(1, round(side / 16))
    ys, xs = np.mgrid[:600, :800]
    photo = np.zeros((600, 800, 3), np.uint8)
    photo[(xs - dot[0]) ** 2 + (ys - dot[1]) ** 2 <= radius**2] = 255
    path = write_image(tmp_path / "dot.png", photo)
    centre = (dot[0] - side / 5.3, dot[1] + side / 7.1)
    batch = Photos([person(path, centre, side, [dot])], 64, margin)[[0]]
    assert (
        batch.images.shape == (1, 3, round(64 * margin), round(64 * margin))
        and batch.images.dtype == torch.uint8
    )
    assert middle(batch.images[0])[:2] == pytest.approx(batch.joints[0, 0, 0].tolist(), abs=0.1)


def test_a_box_of_whole_pixels_at_its_own_size_is_cut_out_exactly(tmp_path):
    photo = np.random.default_rng(0).integers(256, size=(60, 90, 3), dtype=np.uint8)
    path = write_image(tmp_path / "noise.png", photo)
    batch = Photos([person(path, centre=(39.5, 29.5), side=20.0, joints=[(33, 21)])], 20)[[0]]
    assert batch.images[0].permute(1, 2, 0).numpy().tolist() == photo[20:40, 30:50].tolist()
    assert batch.joints[0, 0, 0].tolist() == [3, 1] and batch.head.tolist() == [8]


def test_a_large_box_is_averaged_and_not_sampled(tmp_path):
    photo = np.zeros((320, 320, 3), np.uint8)
    photo[::2] = 255  # stripes: every pixel that is sampled alone is black or white
    batch = Photos(
        [person(write_image(tmp_path / "stripes.png", photo), (159.5, 159.5), 256.0)], 16
    )[[0]]
    assert (batch.images.int() - 127).abs().max() <= 2


def test_outside_of_the_photo_is_black(tmp_path):
    path = write_image(tmp_path / "white.png", np.full((30, 40, 3), 255, np.uint8))
    batch = Photos(
        [person(path, centre=(-0.5, -0.5), side=40.0), person(path, (500.0, 0.0), 20.0)], 40
    )[[0, 1]]
    expected = np.zeros((40, 40), np.uint8)
    expected[20:, 20:] = 255
    assert batch.images[0, 0].numpy().tolist() == expected.tolist() and batch.images[1].max() == 0


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_photos_of_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    Image.new("RGB", (100, 80), (200, 200, 200)).convert(mode).save(path)
    images = Photos([person(path)], 10)[[0]].images
    assert images.shape == (1, 3, 10, 10) and (images.int() - 200).abs().max() <= 3


def test_joints_and_head_are_mapped_like_the_picture(tmp_path):
    path = write_image(tmp_path / "photo.png", np.zeros((80, 100, 3), np.uint8))
    random = np.random.default_rng(1)
    joints = random.uniform(-50, 150, (16, 2))
    batch = Photos(
        [person(path, (41.3, 37.9), 53.1, joints, 7.3), person(path, head=math.nan)], 64, 1.3
    )[[0, 1]]
    side, pixels = 53.1 * 1.3, 83
    expected = (
        (joints - (41.3 - side / 2, 37.9 - side / 2) + 0.5) / side * pixels
        - 0.5
        - 0.5 / side * pixels
    )
    assert batch.joints[0, 0].numpy() == pytest.approx(expected, abs=1e-4)
    assert batch.head[0].item() == pytest.approx(7.3 * pixels / side) and batch.head[1].isnan()
    assert batch.known[0, 0].all() and batch.known[1, 0].tolist() == [True] + [False] * 15
    assert batch.joints[1, 0, 1:].abs().max() == 0
    assert [part.dtype for part in batch] == [torch.uint8, torch.float32, torch.bool, torch.float32]


def test_the_nearest_eight_people_are_kept_nearest_first(tmp_path):
    path = write_image(tmp_path / "photo.png", np.zeros((80, 100, 3), np.uint8))
    at = [(50.0 + d, 40.0) for d in (0, 30, -5, 12, 49, -7, 20, -25, 8, 40, 1)]
    crowd = beside(*(person(path, joints=[place]) for place in at))
    photos = Photos([crowd, person(path)], 40)
    batch = photos[[0, 1]]
    assert batch.joints.shape == (2, 8, 16, 2) and batch.known.shape == (2, 8, 16)
    assert (batch.joints[0, :, 0, 0] - 19.5).tolist() == [0, 1, -5, -7, 8, 12, 20, -25]
    assert (
        batch.known[1].any(1).tolist() == [True] + [False] * 7
        and batch.joints[1, 1:].abs().max() == 0
    )
    assert photos.subset(torch.tensor([1]))[[0]].joints.shape == (1, 1, 16, 2)


def test_the_person_comes_first_however_near_the_others_are(tmp_path):
    path = write_image(tmp_path / "photo.png", np.zeros((80, 100, 3), np.uint8))
    batch = Photos([beside(person(path, joints=[(90, 70)]), person(path, joints=[(50, 40)]))], 40)[
        [0]
    ]
    assert batch.joints[0, :, 0].tolist() == [[59.5, 49.5], [19.5, 19.5]]


def test_of_whom_nothing_is_known_comes_last(tmp_path):
    path = write_image(tmp_path / "photo.png", np.zeros((80, 100, 3), np.uint8))
    somebody, nobody, other = (
        person(path, (2.0, 2.0)),
        person(path, joints=()),
        person(path, joints=[(90, 70)]),
    )
    batch = Photos([beside(somebody, nobody, other)], 40)[[0]]
    assert batch.known[0].any(1).tolist() == [True, True, False] and batch.joints[
        0, 1, 0
    ].tolist() == [107.5, 87.5]


def test_a_subset_has_the_same_people(tmp_path):
    paths = [
        write_image(tmp_path / f"{i}.png", np.full((80, 100, 3), i, np.uint8)) for i in range(4)
    ]
    photos = Photos([person(path) for path in paths], 8, 1.5)
    subset = photos.subset(torch.tensor([3, 1]))
    assert len(photos) == 4 and len(subset) == 2 and subset[[0, 1]].images.shape == (2, 3, 12, 12)
    assert subset[[0, 1]].images.equal(photos[[3, 1]].images)


def test_only_many_people_are_read_by_processes(tmp_path):
    few, many = (
        Photos([person(tmp_path / "x.png")] * 10, 8),
        Photos([person(tmp_path / "x.png")] * 1000, 8),
    )
    assert few.workers == 0 < many.workers <= 8


@pytest.mark.parametrize(
    "size, margin", [(0, 1.0), (-3, 1.0), (64, 0.0), (64, -1.0), (64, math.nan), (64, math.inf)]
)
def test_pictures_of_no_size_are_refused(size, margin):
    with pytest.raises(LinconError, match=f"size {size} with margin {margin}"):
        Photos([], size, margin)


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "empty", "folder"])
def test_a_photo_that_cannot_be_read_is_named(tmp_path, damage):
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(80, 100, 3), dtype=np.uint8)).save(
        path
    )
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(
            {"truncated": whole[: len(whole) // 2], "text": b"no picture", "empty": b""}[damage]
        )
    with pytest.raises(LinconError, match=r"photo\.jpg cannot be read .*fetch it again"):
        Photos([person(path)], 8)[[0]]


def test_a_box_beyond_all_memory_is_refused_by_photo(tmp_path):
    path = write_image(tmp_path / "photo.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(LinconError, match=r"photo\.png cannot be read"):
        Photos([person(path, side=1e7)], 8)[[0]]


def test_a_worker_names_the_photo_in_one_line(tmp_path):
    photos = Photos([person(tmp_path / "gone.jpg")], 8)
    with pytest.raises(LinconError) as refusal:
        list(DataLoader(photos, sampler=[[0]], batch_size=None, num_workers=1))
    assert str(refusal.value).startswith(
        f"{tmp_path / 'gone.jpg'} cannot be read"
    ) and "\n" not in str(refusal.value)
    traceback.clear_frames(refusal.tb)  # the worker goes now, not when garbage is collected


# MPII: files as MATLAB writes them. A dict is a struct of one element, a list of dicts a struct array.


def structs(elements):
    """A MATLAB struct array (1, n) of dicts; what one element lacks is [] in it, as in MATLAB."""
    names = list(dict.fromkeys(name for element in elements for name in element))
    array = np.empty((1, len(elements)), [(name, object) for name in names])
    for place, element in enumerate(elements):
        for name in names:
            array[name][0, place] = matlab(element.get(name, EMPTY))
    return array


def matlab(value):
    if isinstance(value, dict):
        return structs([value]) if value else EMPTY
    if isinstance(value, list):
        return structs(value) if any(value) else EMPTY
    return value


def points(joints, **more):
    return {"point": [{"x": x, "y": y, "id": i, **more} for i, (x, y) in joints.items()]}


def rect(joints, scale=2.0, at=(300.0, 200.0), **more):
    head = {"x1": 100.0, "y1": 50.0, "x2": 130.0, "y2": 90.0}
    return (
        head
        | {"annopoints": points(joints), "scale": scale, "objpos": dict(zip("xy", at, strict=True))}
        | more
    )


def pictures_of(count, **more):
    """Photos of one person each, whose ankle tells which photo it is."""
    return [
        {"image": {"name": f"{i:03}.jpg"}, "annorect": rect({0: (i + 1.0, i + 2.0)}, **more)}
        for i in range(count)
    ]


def write_mpii(folder, pictures, train=None, **fields):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    train = np.ones(len(pictures)) if train is None else np.array(train)
    release = {"annolist": pictures, "img_train": train[None], "version": "12"} | fields
    savemat(folder / mpii.ANNOTATION, {"RELEASE": structs([release])})
    return folder


def write_detections(folder, people, inside=False):
    fields = {
        name: np.array(column, float)[None]
        for name, column in zip(mpii.INDICES, zip(*people, strict=True), strict=True)
    }
    savemat(folder / "detections.mat", {"RELEASE": structs([fields])} if inside else fields)


def everybody(folder):
    training, validation, _ = mpii.read(folder)
    return sorted(training + validation, key=lambda person: person.image.name)


def test_joints_box_and_head_are_those_of_the_file(tmp_path):
    random = np.random.default_rng(0)
    joints = {int(i): tuple(random.uniform(1, 900, 2).tolist()) for i in random.permutation(16)}
    first = {"image": {"name": "a.jpg"}, "annorect": rect(joints, 1.5, (300.0, 200.0))}
    found = everybody(write_mpii(tmp_path, [first, *pictures_of(1)]))[1]
    assert (
        found.image == tmp_path / "images/a.jpg"
        and found.joints.shape == (1, 16, 2)
        and found.known.all()
    )
    for joint, (x, y) in joints.items():
        assert found.joints[0, joint].tolist() == [x - 1, y - 1], JOINTS[joint]
    assert found.centre == (299.0, 199.0 + 22.5) and found.side == 375.0
    assert found.head == pytest.approx(0.6 * 50)  # a box of 30 x 40


def test_a_dot_in_the_photo_lands_at_the_joint(tmp_path):
    photo = np.zeros((480, 640, 3), np.uint8)
    photo[199:202, 299:302] = 255  # around (300, 200), which MATLAB counts as (301, 201)
    picture = {"image": {"name": "a.png"}, "annorect": rect({9: (301, 201)}, 1.0, (310, 190))}
    write_mpii(tmp_path, [picture, *pictures_of(1)])
    write_image(tmp_path / "images/a.png", photo)
    batch = Photos([everybody(tmp_path)[1]], 256)[[0]]
    assert middle(batch.images[0])[:2] == pytest.approx(batch.joints[0, 0, 9].tolist(), abs=0.5)
    assert batch.joints[0, 0, 9].tolist() == pytest.approx(
        [127.5 - 9 * 1.024, 127.5 - 4 * 1.024], abs=1e-4
    )


@pytest.mark.parametrize("visible", [None, 0, 1, "0", "1", EMPTY, np.uint8(0)], ids=repr)
def test_an_annotated_joint_is_known_visible_or_not(tmp_path, visible):
    more = {} if visible is None else {"is_visible": visible}
    one = rect({}, annopoints=points({3: (7.5, 9.0)}, **more))
    several = rect({}, annopoints=points({15: (1.0, 2.0), 0: (3.0, 4.0)}, **more))
    pictures = [
        {"image": {"name": name}, "annorect": rect}
        for name, rect in (("a.jpg", one), ("b.jpg", several))
    ]
    a, b = everybody(write_mpii(tmp_path, pictures))
    assert a.known[0].nonzero()[0].tolist() == [3] and a.joints[0, 3].tolist() == [6.5, 8.0]
    assert b.known[0].nonzero()[0].tolist() == [0, 15] and b.joints[0, [0, 15]].tolist() == [
        [2, 3],
        [0, 1],
    ]
    assert np.all(a.joints[~a.known] == 0)


@pytest.mark.parametrize("absent", ["scale", "objpos", "annopoints", "point", "annorect"])
@pytest.mark.parametrize("empty", [False, True])
def test_people_without_joints_place_or_scale_are_left_out(tmp_path, absent, empty):
    lacking = rect({5: (60.0, 70.0)})
    if absent == "point":
        lacking["annopoints"] = {"point": EMPTY} if empty else {"other": 1.0}
    elif absent != "annorect":
        lacking[absent] = EMPTY
        if not empty:
            del lacking[absent]
    alone = {"image": {"name": "alone.jpg"}, "annorect": lacking}
    if absent == "annorect":
        alone["annorect"] = EMPTY
        if not empty:
            del alone["annorect"]
    both = {"image": {"name": "both.jpg"}, "annorect": [lacking, rect({2: (9.0, 8.0)})]}
    found = everybody(write_mpii(tmp_path, [alone, both, *pictures_of(1)]))
    counts = {p.image.name: len(p.joints) for p in found}
    if absent in ("scale", "objpos"):  # nobody to look at, but somebody who is there
        assert counts == {"000.jpg": 1, "both.jpg": 2}
        assert found[1].joints[:, [2, 5]].tolist() == [[[8, 7], [0, 0]], [[0, 0], [59, 69]]]
    elif absent == "annorect":
        assert counts == {"000.jpg": 1, "both.jpg": 2}
    else:
        assert counts == {"000.jpg": 1, "both.jpg": 1}


def test_this_person_comes_first_then_the_others_in_their_order(tmp_path):
    crowd = {
        "image": {"name": "a.jpg"},
        "annorect": [rect({0: (i + 1.0, 1.0)}, scale=i + 1.0) for i in range(3)],
    }
    found = everybody(write_mpii(tmp_path, [crowd, *pictures_of(1)]))[1:]
    assert [p.joints[:, 0, 0].tolist() for p in found] == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    assert [p.side for p in found] == [250, 500, 750]


@pytest.mark.parametrize("lost", ["x1", "y2"])
@pytest.mark.parametrize("empty", [False, True])
def test_without_a_head_box_the_head_size_is_nan(tmp_path, lost, empty):
    headless = rect({0: (1.0, 1.0)})
    headless[lost] = EMPTY
    if not empty:
        del headless[lost]
    found = everybody(
        write_mpii(tmp_path, [{"image": {"name": "a.jpg"}, "annorect": headless}, *pictures_of(1)])
    )
    assert [math.isnan(p.head) for p in found] == [False, True]


def test_photos_for_the_test_are_not_read(tmp_path):
    broken = {"image": {"name": EMPTY}, "annorect": {"scale": -1.0}}
    one, two, three = pictures_of(3)
    found = everybody(write_mpii(tmp_path, [one, broken, two, three], train=[1, 0, 1, 0]))
    assert [p.joints[0, 0].tolist() for p in found] == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    "annotation, images", [(".", "."), ("mpii_human_pose_v1_u12_2", "."), ("other", "other")]
)
def test_the_annotation_may_lie_one_folder_down(tmp_path, annotation, images):
    write_mpii(tmp_path / annotation, pictures_of(2))
    (tmp_path / annotation / "images").rmdir()
    (tmp_path / images / "images").mkdir()
    assert everybody(tmp_path)[0].image == tmp_path / images / "images/000.jpg"


def test_a_head_box_of_no_size_is_none(tmp_path):
    point_like = rect({0: (1.0, 1.0)}, x1=5.0, y1=6.0, x2=5.0, y2=6.0)
    found = everybody(
        write_mpii(
            tmp_path, [{"image": {"name": "a.jpg"}, "annorect": point_like}, *pictures_of(1)]
        )
    )
    assert math.isnan(found[1].head)


# Its split.


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("folder", [".", "mpii_predictions/data"])
def test_the_listed_people_are_for_validation_and_nobody_beside_them_is_trained_on(
    tmp_path, inside, folder
):
    pictures = pictures_of(5)
    pictures[1]["annorect"] = [rect({0: (50.0 + j, 1.0)}) for j in range(3)]
    write_mpii(tmp_path, pictures)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    write_detections(tmp_path / folder, [(4, 1), (2, 3)], inside)
    training, validation, sentence = mpii.read(tmp_path)
    assert [(p.image.name, p.joints[0, 0, 0]) for p in validation] == [
        ("001.jpg", 51),
        ("003.jpg", 3),
    ]
    assert [p.image.name for p in training] == ["000.jpg", "002.jpg", "004.jpg"]
    assert sentence.startswith(
        "2 people for validation, of the 2 listed in detections.mat (Tompson et al. 2015); 3 "
    )


def test_one_listed_person_is_a_list(tmp_path):
    write_mpii(tmp_path, pictures_of(3))
    write_detections(tmp_path, [(3, 1)])
    assert [p.image.name for p in mpii.read(tmp_path)[1]] == ["002.jpg"]


def test_a_listed_person_who_cannot_be_read_is_seen_in_the_sentence(tmp_path):
    pictures = pictures_of(3)
    del pictures[0]["annorect"]["annopoints"]
    write_mpii(tmp_path, pictures)
    write_detections(tmp_path, [(1, 1), (2, 1)])
    assert mpii.read(tmp_path)[2].startswith("1 people for validation, of the 2 listed")


def test_without_a_list_an_eighth_of_the_photos_is_for_validation(tmp_path):
    pictures = pictures_of(80)
    for picture in pictures[::3]:
        picture["annorect"] = [picture["annorect"], rect({1: (5.0, 5.0)})]
    training, validation, sentence = mpii.read(write_mpii(tmp_path / "a", pictures))
    names = [{p.image.name for p in people} for people in (training, validation)]
    assert [len(part) for part in names] == [70, 10] and not names[0] & names[1]
    assert len(training) + len(validation) == 80 + 27
    assert "one photo of 8" in sentence and "no detections.mat" in sentence
    order = np.random.default_rng(0).permutation(80)
    again = mpii.read(write_mpii(tmp_path / "b", [pictures[i] for i in order]))[1]
    assert {p.image.name for p in again} == names[1]
    assert not names[1] <= {f"{i:03}.jpg" for i in range(40)} and names[1] != {
        f"{i:03}.jpg" for i in range(0, 80, 8)
    }


def test_two_photos_are_enough_and_one_is_not(tmp_path):
    training, validation, _ = mpii.read(write_mpii(tmp_path, pictures_of(2)))
    assert len(training) == len(validation) == 1
    with pytest.raises(
        LinconError, match="0 people to train and 1 to validate on: it takes two photos"
    ):
        mpii.read(write_mpii(tmp_path, pictures_of(1)))


# What it refuses.


def refuse_mpii(folder, match):
    with pytest.raises(LinconError, match=match) as refusal:
        mpii.read(folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


def test_missing_files_are_named(tmp_path):
    refuse_mpii(tmp_path, f"{mpii.ANNOTATION} is neither in .* nor one folder down")
    write_mpii(tmp_path, pictures_of(2))
    (tmp_path / "images").rmdir()
    refuse_mpii(tmp_path, "images is missing")
    (tmp_path / "images").write_bytes(b"x")
    refuse_mpii(tmp_path, "images is a file, where a folder is expected")


@pytest.mark.parametrize("name", [mpii.ANNOTATION, "detections.mat"])
def test_annotations_in_another_format_are_named(tmp_path, name):
    write_mpii(tmp_path, pictures_of(8))
    if name == mpii.ANNOTATION:
        (tmp_path / name).rename(tmp_path / name.replace(".mat", ".json"))
        refuse_mpii(tmp_path, r"Similar names there: mpii_human_pose_v1_u12_1\.json")
    (tmp_path / name).write_text('{"annolist": []}')
    refuse_mpii(tmp_path, f"{name} cannot be read .*: it is text, so fetch")


@pytest.mark.parametrize("name", [mpii.ANNOTATION, "detections.mat"])
@pytest.mark.parametrize("start", [b"", b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512)])
def test_hdf5_is_to_be_saved_in_another_version(tmp_path, name, start):
    write_mpii(tmp_path, pictures_of(8))
    (tmp_path / name).write_bytes(start + b"\x89HDF\r\n\x1a\n" + bytes(600))
    refuse_mpii(tmp_path, rf"{name} .*version 7.3, .*save it again .*save\(..., '-v7'\)")


@pytest.mark.parametrize("value", [3.0, np.ones((3, 2)), "text", 1j])
def test_version_4_is_to_be_saved_in_another_version(tmp_path, value):
    write_mpii(tmp_path, pictures_of(2))
    savemat(tmp_path / mpii.ANNOTATION, {"RELEASE": value}, format="4")
    refuse_mpii(tmp_path, r"of version 4 .*save\(..., '-v7'\)")


def test_mpii_further_down_or_packed_is_named(tmp_path):
    (tmp_path / "mpii_human_pose_v1_u12_2.zip").write_bytes(b"PK\3\4")
    refuse_mpii(tmp_path, "archives to unpack: mpii_human_pose_v1_u12_2.zip")
    write_mpii(tmp_path / "a/b", pictures_of(2))
    refuse_mpii(tmp_path, f"It seems to be in {tmp_path / 'a/b'}: give that")


@pytest.mark.parametrize("name", [mpii.ANNOTATION, "detections.mat"])
def test_a_folder_that_is_named_as_a_file_of_mpii_is_refused(tmp_path, name):
    write_mpii(tmp_path, pictures_of(2))
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    refuse_mpii(tmp_path, f"{name} is a folder, where a file is expected")


@pytest.mark.parametrize("leftover", [".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_annotations_that_tools_leave_behind_are_not_read(tmp_path, leftover):
    write_mpii(tmp_path / "release", pictures_of(8))
    (tmp_path / leftover).mkdir()
    (tmp_path / leftover / mpii.ANNOTATION).write_bytes(b"x")
    assert mpii.annotation(tmp_path) == tmp_path / "release" / mpii.ANNOTATION


@pytest.mark.parametrize(
    "content",
    [b"", b"no matrix", bytes(range(256)) * 4, "truncated"],
    ids=["0", "text", "x", "half"],
)
@pytest.mark.parametrize("name", [mpii.ANNOTATION, "detections.mat"])
def test_what_is_no_matlab_file_is_named(tmp_path, name, content):
    write_mpii(tmp_path, pictures_of(2))
    write_detections(tmp_path, [(1, 1)])
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content == "truncated" else content)
    refuse_mpii(tmp_path, f"{name} cannot be read as a MATLAB 5 file")


@pytest.mark.parametrize(
    "content", [{"other": 1.0}, {"RELEASE": 1.0}, {"RELEASE": structs([{"a": 1.0}] * 2)}]
)
def test_a_file_without_release_is_named(tmp_path, content):
    write_mpii(tmp_path, pictures_of(2))
    savemat(tmp_path / mpii.ANNOTATION, content)
    refuse_mpii(tmp_path, f"{mpii.ANNOTATION} holds no struct RELEASE")


@pytest.mark.parametrize("train", [[1], [1, 1, 1], []])
def test_lists_of_different_lengths_are_refused(tmp_path, train):
    refuse_mpii(
        write_mpii(tmp_path, pictures_of(2), train),
        f"annolist has 2 entries, img_train {len(train)}",
    )


def point(**changes):
    """Two points, the second one changed."""
    second = {"x": 3.0, "y": 4.0, "id": 7.0} | changes
    fields = {name: value for name, value in second.items() if value is not None}
    return {"annopoints": {"point": [{"x": 1.0, "y": 2.0, "id": 6.0}, fields]}}


SECOND = r"annolist\(3\)\.annorect\(2\)"


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        (point(id=16.0), rf"{SECOND}\.annopoints\(1\)\.point\(2\) has id = 16, .*0 to 15"),
        (point(id=-1.0), r"point\(2\) has id = -1"),
        (point(id=2.5), r"point\(2\) has id = 2.5"),
        (point(id=6.0), rf"{SECOND}\.annopoints\(1\)\.point\(2\) has id = 6, which an earlier"),
        (point(id=None), r"point\(2\) lacks id"),
        (point(id="7"), r"point\(2\) has id = '7', not a finite number"),
        (point(x=math.nan), rf"{SECOND}\.annopoints\(1\)\.point\(2\) has x = nan"),
        (point(y=math.inf), r"point\(2\) has y = inf"),
        (point(y=None), r"point\(2\) lacks y"),
        (point(x=np.ones((1, 2))), r"point\(2\) has x = array\(\[1., 1.\]\)"),
        (point(x={"a": 1.0}), r"point\(2\) has x = "),
        ({"annopoints": {"point": 3.0}}, rf"{SECOND}\.annopoints\(1\)\.point\(1\) is no struct"),
        ({"annopoints": "none"}, rf"{SECOND}\.annopoints\(1\) is no struct"),
        ({"scale": 0.0}, f"{SECOND} has scale = 0, which is not positive"),
        ({"scale": -2.0}, f"{SECOND} has scale = -2"),
        ({"scale": math.nan}, f"{SECOND} has scale = nan, not a finite"),
        ({"scale": "big"}, f"{SECOND} has scale = 'big'"),
        ({"objpos": {"x": 3.0}}, rf"{SECOND}\.objpos\(1\) lacks y"),
        ({"objpos": {"x": 3.0, "y": math.nan}}, rf"{SECOND}\.objpos\(1\) has y = nan"),
        ({"objpos": np.ones((1, 2))}, rf"{SECOND}\.objpos\(1\) is no struct"),
        ({"x1": math.inf}, f"{SECOND} has x1 = inf"),
    ],
)
def test_a_broken_person_is_named_by_place(tmp_path, broken, match):
    pictures = pictures_of(3)
    pictures[2]["annorect"] = [rect({0: (1.0, 2.0)}), rect({0: (1.0, 2.0)}, **broken)]
    refuse_mpii(write_mpii(tmp_path, pictures), rf"{mpii.ANNOTATION}: RELEASE\..*{match}")


@pytest.mark.parametrize("image", [None, EMPTY, {"name": EMPTY}, {"other": 1.0}, {"name": 3.0}])
def test_a_photo_without_a_name_is_named_by_place(tmp_path, image):
    pictures = pictures_of(3)
    pictures[1]["image"] = EMPTY if image is None else image
    if image is None:
        del pictures[1]["image"]
    refuse_mpii(write_mpii(tmp_path, pictures), r"annolist\(2\) has no text in image.name")


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/a.jpg", "..", ".", "a/b.jpg", "..\\a.jpg", "C:a.jpg", "a/"]
)
def test_a_path_out_of_the_folder_is_refused(tmp_path, name):
    pictures = pictures_of(3)
    pictures[1]["image"]["name"] = name
    refuse_mpii(
        write_mpii(tmp_path, pictures), r"annolist\(2\) has image.name = .* no plain file name"
    )


@pytest.mark.parametrize("train", [[1, 1, 1], [1, 0, 1]])
@pytest.mark.parametrize("key", [(0, 1), (4, 1), (2, 2), (2, 0), (2.5, 1), (math.nan, 1), (-1, 1)])
def test_a_listed_person_who_is_not_there_is_named(tmp_path, key, train):
    write_mpii(tmp_path, pictures_of(3), train)
    write_detections(tmp_path, [(1, 1), key])
    refuse_mpii(
        tmp_path,
        rf"detections.mat: entry 2 is annolist\({key[0]:g}\).annorect\({key[1]}\), which is nobody",
    )


def test_a_listed_person_in_a_photo_for_the_test_is_refused(tmp_path):
    write_mpii(tmp_path, pictures_of(3), train=[1, 0, 1])
    write_detections(tmp_path, [(2, 1)])
    refuse_mpii(tmp_path, r"annolist\(2\).annorect\(1\), which is nobody in a training photo")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"other": 1.0}, "lacks RELEASE_img_index or RELEASE_person_index"),
        ({"RELEASE_img_index": 1.0}, "lacks RELEASE_img_index or"),
        (
            {"RELEASE_img_index": np.ones(3), "RELEASE_person_index": np.ones(2)},
            "not equally many numbers",
        ),
        ({"RELEASE_img_index": "a", "RELEASE_person_index": "b"}, "not equally many numbers"),
    ],
)
def test_a_list_of_no_people_is_named(tmp_path, content, match):
    write_mpii(tmp_path, pictures_of(3))
    savemat(tmp_path / "detections.mat", content)
    refuse_mpii(tmp_path, f"detections.mat.* {match}")


# Whatever is missing.


def paths_in(value, path=()):
    """Where something can be taken away: the paths of all fields below."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for name, held in inner:
        if isinstance(value, dict):
            yield (*path, name)
        yield from paths_in(held, (*path, name))


def reached(value, path):
    for name in path:
        value = value[name]
    return value


WHOLE = [
    {
        "image": {"name": "a.jpg"},
        "annorect": [rect({0: (1.0, 2.0), 9: (8.0, 9.0)}), rect({5: (7.5, 3.0)}, scale=1.0)],
    },
    {
        "image": {"name": "b.jpg"},
        "annorect": rect({3: (30.0, 40.0), 2: (20.0, 10.0), 1: (5.0, 6.0)}),
    },
    {"image": {"name": "c.jpg"}, "annorect": [rect({15: (11.0, 12.0)})]},
]


def poses_in(pictures):
    """By photo, the joints of everybody in it, read from the dicts."""
    found = {}
    for picture in pictures:
        rects = picture.get("annorect", [])
        for one in rects if isinstance(rects, list) else [rects]:
            joints = {
                p["id"]: (p["x"] - 1, p["y"] - 1)
                for p in one.get("annopoints", {}).get("point", [])
            }
            if joints:
                found.setdefault(picture["image"]["name"], []).append(joints)
    return found


@settings(max_examples=60, deadline=None)
@given(lost=st.sets(st.sampled_from(sorted(paths_in(WHOLE), key=str)), max_size=4))
def test_whatever_is_missing_the_joints_are_exact_or_the_file_is_refused(tmp_path_factory, lost):
    pictures = copy.deepcopy(WHOLE)
    for path in sorted(lost, key=len, reverse=True):
        del reached(pictures, path[:-1])[path[-1]]
    folder = tmp_path_factory.mktemp("mpii")
    try:
        found = everybody(write_mpii(folder, pictures))
    except LinconError as refusal:
        assert "RELEASE.annolist(" in str(refusal) or "it takes two photos" in str(refusal)
        return
    expected = poses_in(pictures)
    for one in found:
        read = [
            {int(j): tuple(pose[j].tolist()) for j in np.flatnonzero(known)}
            for pose, known in zip(one.joints, one.known, strict=True)
        ]
        others = expected[one.image.name]
        assert read[0] in others and sorted(map(str, (sorted(r.items()) for r in read))) == sorted(
            map(str, (sorted(o.items()) for o in others))
        )


# LSP.

ANKLE_TO_ANKLE, WRIST_TO_WRIST = range(6), range(10, 16)
LSP_ORDER = [*ANKLE_TO_ANKLE, *WRIST_TO_WRIST, JOINTS.index("upper neck"), JOINTS.index("head top")]


def write_lsp(root, n=2000, name="lsp_dataset", transposed=False, change=None):
    """Joints (n, 14, 2) as they are written, and their flags."""
    random = np.random.default_rng(n)
    joints, flags = (
        random.uniform(1, 150, (n, 14, 2)),
        random.integers(2, size=(n, 14)).astype(float),
    )
    if change:
        change(joints, flags)
    array = np.concatenate([joints, flags[..., None]], 2)
    (root / name).mkdir(parents=True)
    savemat(
        root / name / "joints.mat",
        {"joints": array.transpose((1, 2, 0) if transposed else (2, 1, 0))},
    )
    return joints, flags


@pytest.mark.parametrize("transposed", [False, True])
def test_lsp_is_read_to_the_joint_hidden_or_not(tmp_path, transposed):
    joints, _ = write_lsp(tmp_path, transposed=transposed)
    training, validation, sentence = lsp.read(tmp_path)
    assert len(training) == len(validation) == 1000 and sentence.startswith(
        "1000 people for validation"
    )
    people = training + validation
    assert [p.image for p in people] == [
        tmp_path / f"lsp_dataset/images/im{i:04d}.jpg" for i in range(1, 2001)
    ]
    read = np.stack([p.joints[0] for p in people])
    assert (read[:, LSP_ORDER] == joints - 1).all() and (read[:, 6:8] == 0).all()
    known = np.stack([p.known[0] for p in people])
    assert known[:, LSP_ORDER].all() and not known[:, 6:8].any()


def test_the_box_of_lsp_is_around_the_joints_and_the_head_from_neck_to_top(tmp_path):
    def change(joints, flags):
        joints[0] = (50, 60)
        joints[0, 0], joints[0, 12], joints[0, 13] = (30, 141), (50, 61), (53, 57)

    write_lsp(tmp_path, change=change)
    first = lsp.read(tmp_path)[0][0]
    assert first.centre == (40.5, 98) and first.side == 1.25 * 84
    assert first.head == pytest.approx(
        0.6 * math.hypot(5, 5 * 2 / 3)
    )  # the diagonal of the box that is assumed


@pytest.mark.parametrize("transposed", [False, True])
def test_lspet_is_for_training_and_only_visible_joints_are_known(tmp_path, transposed):
    def change(joints, flags):
        flags[1], flags[2] = 0, [1] + [0] * 13  # too little to find a box around
        flags[0] = [1, 1] + [0] * 12
        joints[0, 2:] = np.nan
        joints[0, :2] = (11, 21), (31, 26)

    write_lsp(tmp_path)
    joints, flags = write_lsp(tmp_path, 30, "lspet_dataset", transposed, change)
    assert len(lsp.read(tmp_path)[0]) == 1000
    training, validation, sentence = lsp.read(tmp_path, extended=True)
    assert len(training) == 1028 and len(validation) == 1000 and "LSPET" in sentence
    first, second = training[1000:1002]
    assert (
        first.image == tmp_path / "lspet_dataset/images/im00001.jpg"
        and second.image.name == "im00004.jpg"
    )
    assert (
        first.known[0].nonzero()[0].tolist() == [0, 1]
        and first.joints[0].sum() == 10 + 20 + 30 + 25
    )
    assert first.centre == (20, 22.5) and first.side == 25 and math.isnan(first.head)
    for i, one in enumerate(training[1001:], 3):
        assert (one.known[0, LSP_ORDER] == (flags[i] == 1)).all()
        assert (
            one.joints[0, LSP_ORDER] == np.where(flags[i, :, None] == 1, joints[i] - 1, 0)
        ).all()


def test_one_person_of_lspet_is_read(tmp_path):
    write_lsp(tmp_path)
    write_lsp(tmp_path, 1, "lspet_dataset", True, lambda joints, flags: flags.fill(1))
    assert len(lsp.read(tmp_path, extended=True)[0]) == 1001


def refuse_lsp(root, match, extended=False):
    with pytest.raises(LinconError, match=match) as refusal:
        lsp.read(root, extended)
    assert "\n" not in str(refusal.value) and str(root) in str(refusal.value)


def test_missing_files_of_lsp_are_named(tmp_path):
    refuse_lsp(tmp_path, "lsp_dataset/joints.mat is missing")
    write_lsp(tmp_path)
    refuse_lsp(tmp_path, "lspet_dataset/joints.mat is missing", extended=True)
    (tmp_path / "lspet_dataset/joints.mat").mkdir(parents=True)
    refuse_lsp(tmp_path, "joints.mat is a folder, where a file is expected", extended=True)


def test_lsp_further_up_or_in_another_format_is_named(tmp_path):
    (tmp_path / "lsp_dataset").mkdir()
    (tmp_path / "lsp_dataset/joints.txt").write_text("1 2 3")
    refuse_lsp(tmp_path, r"joints.mat is missing.*Similar names there: joints\.txt")
    (tmp_path / "lsp_dataset/joints.mat").write_text("1 2 3")
    refuse_lsp(tmp_path, r"joints.mat cannot be read .*it is text")
    refuse_lsp(tmp_path / "lsp_dataset", f"It seems to be in {tmp_path}: give that")


def test_another_number_of_people_is_refused(tmp_path):
    write_lsp(tmp_path, 1999)
    refuse_lsp(tmp_path, "joints.mat holds 1999 people, not 2000")


@pytest.mark.parametrize("place", [999, 1234])
def test_joints_of_lsp_that_are_not_finite_are_named_by_photo(tmp_path, place):
    def change(joints, flags):
        joints[place, 5, 1] = math.nan

    write_lsp(tmp_path, change=change)
    refuse_lsp(tmp_path, f"joints.mat: the joints of im{place + 1:04d}.jpg are not finite")


@pytest.mark.parametrize(
    "content",
    [{"other": 1.0}, {"joints": "text"}, {"joints": np.ones((4, 14, 5))}, {"joints": {"a": 1}}],
)
def test_joints_of_another_kind_are_refused(tmp_path, content):
    write_lsp(tmp_path)
    savemat(tmp_path / "lsp_dataset/joints.mat", content)
    refuse_lsp(tmp_path, "joints.mat has joints of .*not .3, 14, n. or .14, 3, n. numbers")


def test_joints_that_are_no_matlab_file_are_refused(tmp_path):
    write_lsp(tmp_path)
    (tmp_path / "lsp_dataset/joints.mat").write_bytes(b"nothing")
    refuse_lsp(tmp_path, "joints.mat cannot be read as a MATLAB 5 file")
