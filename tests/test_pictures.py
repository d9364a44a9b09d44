"""Pictures of every mode and format have the right brightness for every reader, or are refused by name."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lincon import LinconError
from lincon.tasks.classification.data.folders import ImageNet, decode
from lincon.tasks.classification.data.objectnet import ObjectNet
from lincon.tasks.experiments.data.pictures import Unreadable, read_picture
from lincon.tasks.indoor import predict as indoor
from lincon.tasks.pose import predict as pose
from lincon.tasks.pose.data.photos import Person, Photos

from .classification_files import write_objectnet

SIZE = 264  # even without ObjectNet's border not below 256
FORMATS = {
    "1": ["PNG", "TIFF"],
    "L": ["PNG", "TIFF", "JPEG", "WEBP"],
    "LA": ["PNG", "TIFF"],
    "P": ["PNG", "TIFF"],
    "RGB": ["PNG", "TIFF", "JPEG", "WEBP"],
    "RGBA": ["PNG", "TIFF", "WEBP"],
    "CMYK": ["TIFF", "JPEG"],
    "I;16": ["PNG", "TIFF"],
    "F": ["TIFF"],
}
EVERY = [(mode, format) for mode, formats in FORMATS.items() for format in formats]
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}


def noise(rng, *shape):
    """Bytes whose mean varies from picture to picture."""
    return (rng.integers(256, size=shape) * rng.uniform(0.2, 1)).astype(np.uint8)


def picture(mode, seed=0):
    """A picture, and the mean of each of its channels as a viewer shows it, 0 to 255."""
    rng = np.random.default_rng(seed)
    grey, colours = noise(rng, SIZE, SIZE), noise(rng, SIZE, SIZE, 4)
    if mode == "1":
        bits = grey > 100
        return Image.fromarray(bits), np.full(3, 255 * bits.mean())
    if mode == "L":
        return Image.fromarray(grey), np.full(3, grey.mean())
    if mode == "LA":
        return Image.fromarray(colours[..., :2], "LA"), over_white(colours[..., [0, 0, 0, 1]])
    if mode == "P":
        palette = noise(rng, 256, 3)
        image = Image.fromarray(grey, "P")
        image.putpalette(palette.tobytes())
        return image, palette[grey].mean((0, 1))
    if mode == "RGB":
        return Image.fromarray(colours[..., :3]), colours[..., :3].mean((0, 1))
    if mode == "RGBA":
        return Image.fromarray(colours), over_white(colours)
    if mode == "CMYK":
        inks = colours / 255
        light = (1 - inks[..., :3]) * (1 - inks[..., 3:])
        return Image.fromarray(colours, "CMYK"), 255 * light.mean((0, 1))
    if mode == "I;16":
        values = (grey.astype(np.uint16) << 8) + noise(rng, SIZE, SIZE)
        return Image.fromarray(values), np.full(3, values.mean() / 257)
    values = (grey / 255).astype(np.float32)
    return Image.fromarray(values), np.full(3, 255 * values.mean())


def over_white(rgba):
    alpha = rgba[..., 3:] / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).mean((0, 1))


def saved(folder, image, format, name="picture"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{format.lower()}"
    image.save(path, format, **LOSSLESS.get(format, {}))
    return path


# Readers: from the file of a picture to the mean of each channel that a model sees.


def through_folders(folder, path):
    for part in ("train", "val"):
        (folder / part / "a").mkdir(parents=True, exist_ok=True)
        (folder / part / "a" / path.name).write_bytes(path.read_bytes())
    data = ImageNet(root=folder)
    return data.train_set[[0]].images, data.test_set[[0]].images


def through_objectnet(folder, path):
    write_objectnet(folder)
    (folder / "images/chair/0a1b.png").unlink()
    (folder / "images/chair" / path.name).write_bytes(path.read_bytes())
    return (ObjectNet(folder)[[1]].images,)


def through_photos(folder, path):
    joints, known = np.zeros((1, 16, 2)), np.zeros((1, 16), bool)
    middle = (SIZE - 1) / 2
    person = Person(path, (middle, middle), SIZE, joints, known, 1.0)
    return (Photos([person], 128)[[0]].images,)


def through_pose(folder, path):
    seen = []

    def see(model, pictures, flip):
        seen.append(pictures)
        return torch.zeros(1, 16, 2), torch.ones(1, 16)

    with (
        patch.object(pose, "load_trained", lambda *_: (None, 128)),
        patch.object(pose, "seen", see),
    ):
        pose.predict([path], folder, folder / "out")
    with Image.open(folder / "out" / f"{path.stem}.png") as drawing:
        assert drawing.size == (SIZE, SIZE)
    return tuple(seen)


class Rooms:
    """Stands for a model of rooms, and keeps what it sees."""

    multiple = 32

    def __init__(self):
        self.seen = []

    def __call__(self, pictures):
        self.seen.append(pictures)
        return torch.ones(1, 1, 128, 128), torch.ones(1, 1, 3, 128, 128)


def through_indoor(folder, path):
    model = Rooms()
    with (
        patch.object(indoor, "load_trained", lambda *_: (model, 128)),
        patch.object(indoor, "standardised", lambda pictures: pictures),
    ):
        indoor.predict([path], folder, folder / "out")
    return tuple(255 * pictures for pictures in model.seen)


READERS = {
    "folders": through_folders,
    "objectnet": through_objectnet,
    "photos": through_photos,
    "predict pose": through_pose,
    "predict indoor": through_indoor,
}


def assert_mean(folder, path, reader, expected):
    for images in READERS[reader](folder, path):
        assert images[0].float().mean((1, 2)).numpy() == pytest.approx(expected, abs=2.55)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.sampled_from(EVERY), st.sampled_from(sorted(READERS)), st.integers(0, 2**32 - 1))
def test_every_reader_sees_the_right_brightness(tmp_path_factory, kind, reader, seed):
    mode, format = kind
    image, expected = picture(mode, seed)
    folder = tmp_path_factory.mktemp("pictures")
    assert_mean(folder / "data", saved(folder, image, format), reader, expected)


@pytest.mark.parametrize("mode, format", EVERY)
def test_every_mode_has_the_right_brightness(tmp_path, mode, format):
    image, expected = picture(mode)
    pixels = np.asarray(read_picture(saved(tmp_path, image, format)))
    assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
    assert pixels.mean((0, 1)) == pytest.approx(expected, abs=2.55)


def ramp(kind, white):
    return Image.fromarray(np.linspace(0, white, 100 * 100).reshape(100, 100).astype(kind))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_a_ramp_of_16_bits_is_grey_in_the_middle(tmp_path, format):
    path = saved(tmp_path, ramp(np.uint16, 65535), format)
    assert np.asarray(read_picture(path)).mean() == pytest.approx(127.5, abs=0.5)


def test_a_ramp_whose_zero_is_white_is_turned(tmp_path):
    path = saved(tmp_path, ramp(np.uint16, 30000), "TIFF")
    black, white = (b"\x06\x01\x03\0\x01\0\0\0" + bytes([zero, 0]) for zero in (1, 0))
    assert black in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(black, white))
    expected = 255 * (1 - 15000 / 65535)
    assert np.asarray(read_picture(path)).mean() == pytest.approx(expected, abs=0.5)


def test_grey_of_12_bits_has_its_own_white(tmp_path):
    (tmp_path / "p.pgm").write_bytes(b"P5 2 1 4095 " + (4095).to_bytes(2, "big") + b"\0\0")
    assert np.asarray(read_picture(tmp_path / "p.pgm"))[..., 0].tolist() == [[255, 0]]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "kind, white", [(np.int32, 65535), (np.int32, 2**31 - 1), (np.float32, 255), (np.float32, -1)]
)
def test_numbers_whose_white_is_not_known_are_refused(tmp_path, reader, kind, white):
    path = saved(tmp_path, ramp(kind, white), "TIFF", "measured")
    with pytest.raises(LinconError, match=r"measured\.tiff .*save it again with 8 or 16 bits"):
        READERS[reader](tmp_path / "data", path)


def test_numbers_that_are_none_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.full((3, 3), np.nan, np.float32)), "TIFF")
    with pytest.raises(Unreadable, match="from nan to nan"):
        read_picture(path)


@pytest.mark.parametrize("mode, key", [("P", 7), ("L", 7), ("RGB", (7, 7, 7))])
def test_a_transparent_colour_is_white(tmp_path, mode, key):
    image = Image.new(mode, (4, 4), key)
    if mode == "P":
        image.putpalette([7] * 768)
    image.save(tmp_path / "p.png", transparency=key)
    assert (np.asarray(read_picture(tmp_path / "p.png")) == 255).all()


def test_lab_is_converted(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (4, 4), (200, 40, 90)).convert("LAB"), "TIFF")
    assert np.asarray(read_picture(path))[0, 0] == pytest.approx([200, 40, 90], abs=3)


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "page.png").write_text("<!DOCTYPE html>")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name, said in (
        ("folder.png", "it is a folder"),
        ("text.png", "is no picture .*fetch it again"),
        ("page.png", "it is a web page"),
        ("phone.heic", "is no picture that Pillow reads.* save it as PNG or JPEG"),
        ("gone.png", "No such"),
    ):
        with pytest.raises(Unreadable, match=rf"{name} .*{said}"):
            read_picture(tmp_path / name)


# Photos of a phone.

SHOWN = np.zeros((30, 20, 3), np.uint8)
SHOWN[:10, :10], SHOWN[20:, :10], SHOWN[20:, 10:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)

STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}
"""How a camera stores a picture that is shown as `SHOWN`, by EXIF's orientation."""


def phone(path, orientation, shown=SHOWN):
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.ascontiguousarray(STORED[orientation](shown))
    Image.fromarray(stored).save(path, exif=exif, **LOSSLESS.get(path.suffix[1:].upper(), {}))
    return path


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["p.jpeg", "p.png", "p.tiff", "p.webp"])
def test_a_photo_of_a_phone_stands_upright(tmp_path, orientation, name):
    upright = np.asarray(read_picture(phone(tmp_path / name, orientation))).astype(int)
    assert upright.shape == SHOWN.shape and abs(upright - SHOWN).mean() < 10


@pytest.mark.parametrize("orientation", STORED)
def test_a_box_read_off_a_viewer_points_at_the_person(tmp_path, orientation):
    photo, seen = phone(tmp_path / "p.png", orientation), []

    def see(model, pictures, flip):
        seen.append(pictures)
        return torch.full((1, 16, 2), 3.5), torch.ones(1, 16)

    with patch.object(pose, "load_trained", lambda *_: (None, 8)), patch.object(pose, "seen", see):
        pose.predict([photo], tmp_path, tmp_path / "out", (4.5, 24.5, 8))
    assert (seen[0][0, 1] == 250).all() and (seen[0][0, 0] == 0).all()
    with Image.open(tmp_path / "out/p.png") as drawing:
        assert drawing.size == (20, 30)


def test_joints_of_a_data_set_count_pixels_as_they_are_stored(tmp_path):
    photo = phone(tmp_path / "p.png", 6)
    person = Person(photo, (14.5, 9.5), 8, np.zeros((1, 16, 2)), np.zeros((1, 16), bool), 1.0)
    stored = torch.from_numpy(STORED[6](SHOWN).copy()).permute(2, 0, 1)
    assert Photos([person], 8)[[0]].images[0].equal(stored[:, 6:14, 11:19])


def test_images_in_folders_stand_upright(tmp_path):
    large = SHOWN.repeat(20, 0).repeat(20, 1)
    upright = decode(phone(tmp_path / "p.png", 1, large), 224)
    assert decode(phone(tmp_path / "q.png", 6, large), 224).equal(upright)


def test_damaged_exif_data_turn_nothing(tmp_path):
    Image.fromarray(SHOWN).save(tmp_path / "p.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "p.png")), SHOWN)
