"""Stanford 2D-3D-Semantics on disk: its numbers read exactly, whatever is amiss refused by path, scenes written so."""

import itertools
import math
import struct
import traceback
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from lincon import LinconError
from lincon.errors import LinconWarning
from lincon.tasks.indoor.data import stanford, writing
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.stanford import Frame, Frames
from lincon.tasks.indoor.data.writing import write

CAMERA = "camera_00d10d86db1e435081a837ced388375f_office_24"
IMAGE = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
DEPTH = np.random.default_rng(1).integers(1, 65535, size=(16, 16), dtype=np.uint16)
NORMALS = np.random.default_rng(2).integers(256, size=(16, 16, 3), dtype=np.uint8)


def png(array, bits, colours):
    """A PNG made by hand, without PIL: the rows, each after a 0, as the standard has them."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def put(
    data,
    name=f"{CAMERA}_frame_0",
    image=IMAGE,
    depth=DEPTH,
    normals=NORMALS,
    plural="normals",
    domain="_domain_",
):
    """One view in the folder ``data`` of an area."""
    parts = (
        ("rgb", "rgb", image, 8, 2),
        ("depth", "depth", depth, 16, 0),
        ("normal", plural, normals, 8, 2),
    )
    paths = []
    for folder, suffix, array, bits, colours in parts:
        (data / folder).mkdir(parents=True, exist_ok=True)
        paths.append(data / folder / f"{name}{domain}{suffix}.png")
        paths[-1].write_bytes(png(array, bits, colours))
    return Frame(*paths)


def put_areas(root, areas=stanford.AREAS):
    """Areas with 1, 2, 3... views, in the order of `stanford.AREAS`."""
    for count, area in enumerate(stanford.AREAS, 1):
        for number in range(count if area in areas else 0):
            put(root / f"area_{area}/data", f"{CAMERA}_frame_{number}")
    return root


def alone(frame, size=16):
    return Frames([frame], size)[[0]]


def refused(frame, match, size=16):
    """Reading the view is refused, in one line."""
    with pytest.raises(LinconError, match=match) as refusal:
        alone(frame, size)
    assert "\n" not in str(refusal.value)


# Numbers.


def test_every_number_is_that_of_the_files(tmp_path):
    depth, colours = DEPTH.copy(), NORMALS.copy()
    depth[0, :6] = 1, 512, 65534, 65535, 0, 32768
    colours[3, :3] = (128, 128, 128), (128, 128, 255), (128, 127, 128)
    batch = alone(put(tmp_path, depth=depth, normals=colours))
    assert [part.dtype for part in batch] == [torch.uint8, torch.float32, torch.float32]
    assert [part.shape for part in batch] == [(1, 3, 16, 16), (1, 16, 16), (1, 3, 16, 16)]
    assert batch.images[0].permute(1, 2, 0).numpy().tolist() == IMAGE.tolist()
    assert batch.depth[0, 0, [0, 1, 2, 5]].tolist() == [1 / 512, 1, 65534 / 512, 64]
    unknown = batch.depth[0].isnan()
    assert unknown.nonzero().tolist() == [[0, 3], [0, 4]]
    assert (batch.depth[0] * 512)[~unknown].int().tolist() == depth[~unknown.numpy()].tolist()

    unknown = batch.normals[0].isnan()
    assert unknown.nonzero().tolist() == [[channel, 3, 0] for channel in range(3)]
    vectors = colours.astype(float) / 127.5 - 1
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    read = batch.normals[0].permute(1, 2, 0)
    assert np.abs(read.numpy() - vectors)[~unknown[0].numpy()].max() < 1e-6
    assert read[3, 1].tolist() == pytest.approx(
        [1 / 255, 1 / 255, 1], abs=2e-5
    )  # a wall that faces the camera
    assert read[3, 2].tolist() == pytest.approx([3**-0.5, -(3**-0.5), 3**-0.5])


@pytest.mark.parametrize("size", [1, 3, 5, 8, 12, 16, 23])
def test_depth_and_normals_are_sampled_at_the_centres_of_pixels(tmp_path, size):
    depth, colours = DEPTH.copy(), NORMALS.copy()
    depth[::3, ::2], colours[::2, ::3] = 65535, 128
    batch = alone(put(tmp_path, depth=depth, normals=colours), size)
    places = [math.floor((i + 0.5) * 16 / size) for i in range(size)]
    for i, j in itertools.product(range(size), repeat=2):
        value, colour = depth[places[i], places[j]], colours[places[i], places[j]]
        assert batch.depth[0, i, j].item() == value / 512 or (
            value == 65535 and batch.depth[0, i, j].isnan()
        )
        normal = batch.normals[0, :, i, j]
        assert (
            normal.isnan().all()
            if (colour == 128).all()
            else normal.norm().item() == pytest.approx(1)
        )
        if not normal.isnan().any():
            assert torch.dot(normal, torch.tensor(colour - 127.5).float()).item() == pytest.approx(
                np.linalg.norm(colour - 127.5), rel=1e-5
            )


def test_the_image_is_averaged_and_not_sampled(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    depth, colours = np.full((64, 64), 512, np.uint16), np.full((64, 64, 3), 200, np.uint8)
    batch = alone(put(tmp_path, image=stripes, depth=depth, normals=colours), 8)
    assert (
        batch.images[:, :, 1:-1].int() - 127
    ).abs().max() <= 2  # the filter is cut off at the border


def test_image_depth_and_normals_stay_in_place_together(tmp_path):
    square = np.s_[24:48, 8:24]
    image, depth = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), 512, np.uint16)
    colours = np.full((64, 64, 3), (128, 128, 255), np.uint8)
    image[square], depth[square], colours[square] = 255, 1024, (255, 128, 128)
    batch = alone(put(tmp_path, image=image, depth=depth, normals=colours), 16)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[6:12, 2:6] = True
    assert ((batch.depth[0] == 2) == inside).all() and ((batch.normals[0, 0] > 0.9) == inside).all()
    assert ((batch.images[0, 0] > 127) == inside).all()


def test_an_image_with_alpha_is_read_without_it(tmp_path):
    frame = put(tmp_path)
    frame.rgb.write_bytes(png(np.concatenate([IMAGE, IMAGE[..., :1]], 2), 8, 6))
    assert alone(frame).images[0].permute(1, 2, 0).numpy().tolist() == IMAGE.tolist()


# Layout.


@pytest.mark.parametrize("plural", ["normals", "normal"])
@pytest.mark.parametrize(
    "camera, domain", [("_", "_domain_"), ("__", "_domain__"), ("__", "_domain_")]
)
def test_all_spellings_are_read(tmp_path, plural, camera, domain):
    name = f"camera_00d10d86db1e435081a837ced388375f{camera}office_24_frame_7"
    frame = put(tmp_path, name, plural=plural, domain=domain)
    assert stanford.frames_of(tmp_path) == [frame]


def test_spellings_may_differ_between_the_files_of_a_view(tmp_path):
    one, two = (
        put(tmp_path),
        put(tmp_path, CAMERA.replace("_office", "__office") + "_frame_0", domain="_domain__"),
    )
    one.depth.unlink()
    two.rgb.unlink()
    two.normal.unlink()
    assert stanford.frames_of(tmp_path) == [Frame(one.rgb, two.depth, one.normal)]


def test_other_files_are_left_out_and_counted(tmp_path):
    frame = put(tmp_path)
    put(tmp_path, f"._{CAMERA}_frame_0")
    put(tmp_path, f"{CAMERA}_frame_equirectangular")
    (tmp_path / "rgb/.DS_Store").write_bytes(b"x")
    (tmp_path / "rgb/index.html").write_bytes(b"x")
    (tmp_path / f"depth/{CAMERA}_frame_9_domain_semantic.png").write_bytes(b"x")
    with pytest.warns(LinconWarning, match=r"5 entries .*rgb/index.html.* 2 more"):
        assert stanford.frames_of(tmp_path) == [frame]


def test_what_tools_leave_in_an_area_is_no_view(tmp_path):
    """Without a warning, which the tests take for a failure."""
    frame = put(tmp_path)
    for place in (tmp_path, *tmp_path.iterdir()):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", f"{CAMERA}_frame_1_domain_rgb.png~"):
            (place / name).write_bytes(b"x")
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
            (place / name).mkdir()
    assert stanford.frames_of(tmp_path) == [frame]


def test_a_folder_that_is_named_as_a_view_is_refused(tmp_path):
    frame = put(tmp_path)
    frame.depth.unlink()
    frame.depth.mkdir()
    with pytest.raises(LinconError, match=f"{frame.depth} is a folder, where a file is expected"):
        stanford.frames_of(tmp_path)


def test_a_file_in_the_place_of_a_folder_of_views_is_refused(tmp_path):
    put(tmp_path)
    for path in (tmp_path / "rgb").iterdir():
        path.unlink()
    (tmp_path / "rgb").rmdir()
    (tmp_path / "rgb").write_bytes(b"x")
    with pytest.raises(LinconError, match="rgb is a file, where a folder is expected"):
        stanford.frames_of(tmp_path)


def test_views_are_in_the_order_of_camera_and_number(tmp_path):
    names = [f"{CAMERA}_frame_{number}" for number in (10, 9, 100, 0)] + [
        f"{CAMERA.replace('24', '3')}_frame_5"
    ]
    frames = [put(tmp_path, name) for name in names]
    assert stanford.frames_of(tmp_path) == [frames[i] for i in (3, 1, 0, 2, 4)]


@pytest.mark.parametrize(
    "fold, train, test",
    [
        (1, ("1", "2", "3", "4", "6"), ("5a", "5b")),
        (2, ("1", "3", "5a", "5b", "6"), ("2", "4")),
        (3, ("2", "4", "5a", "5b"), ("1", "3", "6")),
    ],
)
def test_a_fold_has_its_areas_and_all_their_views(tmp_path, fold, train, test):
    training, testing, sentence = stanford.read(put_areas(tmp_path), fold)
    counts = {area: count for count, area in enumerate(("1", "2", "3", "4", "5a", "5b", "6"), 1)}
    for frames, areas in ((training, train), (testing, test)):
        assert [f.rgb.parts[-4] for f in frames.frames] == [
            f"area_{area}" for area in areas for _ in range(counts[area])
        ]
    assert sentence == (
        f"Fold {fold}: {len(testing)} views of areas {', '.join(test)} for the test, {len(training)} views of areas "
        f"{', '.join(train)} for training."
    )
    assert len(training) + len(testing) == 28


def test_areas_can_be_chosen(tmp_path):
    put_areas(tmp_path, ("1", "5a"))
    training, testing, sentence = stanford.read(tmp_path, train=("5a",), test=("1",), size=8)
    assert len(training) == 5 and len(testing) == 1 and training[[4]].images.shape == (1, 3, 8, 8)
    assert (
        sentence
        == "Areas as asked for, no fold: 1 views of area 1 for the test, 5 views of area 5a for training."
    )


def test_one_part_can_be_chosen_beside_that_of_the_fold(tmp_path):
    put_areas(tmp_path, ("3", "5a", "5b"))
    training, testing, _ = stanford.read(tmp_path, train=("3",))
    assert len(training) == 3 and len(testing) == 11


def test_frames_in_batches_and_subsets_are_the_same(tmp_path):
    frames = Frames(
        [put(tmp_path, f"{CAMERA}_frame_{i}", image=np.roll(IMAGE, i)) for i in range(3)], 16
    )
    both, subset = frames[[2, 0]], frames.subset(torch.tensor([2]))
    assert len(frames) == 3 and len(subset) == 1
    assert all(
        a[:1].equal(b) and a[:1].equal(c)
        for a, b, c in zip(both, subset[[0]], frames[[2]], strict=True)
    )
    assert not both.images[0].equal(both.images[1])


def test_only_many_frames_are_read_by_processes(tmp_path):
    frame = Frame(tmp_path, tmp_path, tmp_path)
    assert Frames([frame] * 10, 8).workers == 0 < Frames([frame] * 1000, 8).workers <= 8


# What is amiss.


@pytest.mark.parametrize(
    "choice, match",
    [
        ({"fold": 4}, "fold 4 is none"),
        ({"fold": 0}, "fold 0 is none"),
        (
            {},
            r"lacks areas 2, 3, 4, 6, 5b, and has areas 1, 5a: unpack .*area_2/data exists, or name other areas",
        ),
        ({"train": ("1",), "test": ("6",)}, "lacks area 6, and has areas 1, 5a"),
        (
            {"train": ("1", "7"), "test": ("6", "area_1")},
            "no areas 7, area_1 in 2D-3D-Semantics: choose from 1, 2, 3",
        ),
        (
            {"train": ("1",), "test": ("1",)},
            "training on area 1 and testing on area 1: .*none of them twice",
        ),
        ({"train": ("1", "1"), "test": ("5a",)}, "none of them twice"),
        ({"train": (), "test": ("5a",)}, "training on no area and testing on area 5a: name one"),
        ({"train": ("1",), "test": ()}, "testing on no area"),
        ({"train": ("5a",)}, "training on area 5a and testing on areas 5a, 5b"),
        ({"train": ("1",), "test": ("5a",), "size": 0}, "size 0 are no pictures"),
    ],
)
def test_areas_that_cannot_be_read_are_named(tmp_path, choice, match):
    put_areas(tmp_path, ("1", "5a"))
    with pytest.raises(LinconError, match=match):
        stanford.read(tmp_path, **choice)


def test_a_folder_without_areas_is_named(tmp_path):
    with pytest.raises(
        LinconError, match=r"nowhere lacks areas 1, 2, 3, 4, 6, 5a, 5b, and has no area: unpack"
    ):
        stanford.read(tmp_path / "nowhere")


def test_areas_further_down_or_packed_are_named(tmp_path):
    (tmp_path / "area_1_no_xyz.tar").write_bytes(b"x")
    with pytest.raises(LinconError, match=r"archives to unpack: area_1_no_xyz.tar"):
        stanford.read(tmp_path, train=("1",), test=("5a",))
    put_areas(tmp_path / "noXYZ", ("1", "5a"))
    with pytest.raises(LinconError, match=f"It seems to be in {tmp_path / 'noXYZ'}: give that"):
        stanford.read(tmp_path, train=("1",), test=("5a",))


def test_an_empty_area_is_named(tmp_path):
    put_areas(tmp_path, ("1",))
    (tmp_path / "area_2/data/rgb").mkdir(parents=True)
    with pytest.raises(LinconError, match="area_2/data holds no views"):
        stanford.read(tmp_path, train=("1",), test=("2",))


@pytest.mark.parametrize("kind", ["rgb", "depth", "normal"])
def test_a_missing_file_of_a_view_is_named(tmp_path, kind):
    put(tmp_path, f"{CAMERA}_frame_2")
    getattr(put(tmp_path, f"{CAMERA}_frame_10"), kind).unlink()
    path = f"{kind}/{CAMERA}_frame_10_domain_{'normals' if kind == 'normal' else kind}.png"
    match = (
        f"{path} is missing, though {CAMERA}_frame_10 has .*; 1 of 2 views lack theirs in {kind}/"
    )
    with pytest.raises(LinconError, match=match):
        stanford.frames_of(tmp_path)


def test_a_missing_folder_of_an_area_is_named(tmp_path):
    frame = put(tmp_path)
    frame.depth.unlink()
    frame.depth.parent.rmdir()
    with pytest.raises(LinconError, match=f"depth/{CAMERA}_frame_0_domain_depth.png is missing"):
        stanford.frames_of(tmp_path)


def test_two_files_for_one_view_are_named(tmp_path):
    put(tmp_path)
    (tmp_path / f"normal/{CAMERA}_frame_0_domain_normal.png").write_bytes(b"")
    with pytest.raises(
        LinconError, match=r"frame_0_domain_normals.png shows the same view as .*_domain_normal.png"
    ):
        stanford.frames_of(tmp_path)


@pytest.mark.parametrize(
    "kind, bits, colours, channels, match",
    [
        ("depth", 8, 0, 1, "is 8-bit grey, not 16-bit grey: fetch it as it was released"),
        ("depth", 8, 2, 3, "is 8-bit RGB, not 16-bit grey"),
        ("depth", 16, 2, 3, "is 16-bit RGB, not 16-bit grey"),
        ("depth", 16, 4, 2, "is 16-bit grey with alpha, not 16-bit grey"),
        ("normal", 8, 6, 4, "is 8-bit RGBA, not 8-bit RGB"),
        ("normal", 16, 2, 3, "is 16-bit RGB, not 8-bit RGB"),
        ("normal", 8, 0, 1, "is 8-bit grey, not 8-bit RGB"),
        ("rgb", 16, 2, 3, "is 16-bit RGB, not 8-bit RGB or 8-bit RGBA"),
        ("rgb", 8, 0, 1, "is 8-bit grey, not 8-bit RGB or"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path, kind, bits, colours, channels, match):
    frame = put(tmp_path)
    path = getattr(frame, kind)
    path.write_bytes(png(np.full((16, 16, channels), 7), bits, colours))
    refused(frame, f"{path.name} {match}")


def test_a_palette_is_no_normals(tmp_path):
    frame = put(tmp_path)
    Image.fromarray(NORMALS).quantize(16).save(frame.normal)
    refused(frame, r"normals.png is [48]-bit palette, not 8-bit RGB")


@pytest.mark.parametrize("kind", ["depth", "normal"])
def test_files_of_different_sizes_are_named(tmp_path, kind):
    frame, other = (
        put(tmp_path),
        put(tmp_path / "b", depth=DEPTH[:12, :15], normals=NORMALS[:12, :15]),
    )
    refused(
        frame._replace(**{kind: getattr(other, kind)}),
        rf"b/{kind}/.* has 15 x 12 pixels, .*_rgb.png 16 x 16",
    )


def test_a_view_that_is_not_square_is_named(tmp_path):
    refused(
        put(tmp_path, image=IMAGE[:12], depth=DEPTH[:12], normals=NORMALS[:12]),
        "rgb.png has 16 x 12 pixels, .*sq",
    )


def test_a_view_of_which_nothing_is_known_is_named(tmp_path):
    refused(
        put(tmp_path, depth=np.full_like(DEPTH, 65535)),
        r"depth.png has no pixel that is known, at 16 x 16",
    )
    refused(
        put(tmp_path, normals=np.full_like(NORMALS, 128)), r"normals.png has no pixel that is known"
    )
    corner = np.full_like(DEPTH, 65535)
    corner[0, 0] = 9
    frame = put(tmp_path, depth=corner)
    assert alone(frame).depth[0, 0, 0] == 9 / 512
    refused(
        frame, r"depth.png has no pixel that is known, at 4 x 4", size=4
    )  # none of those that are sampled


@pytest.mark.parametrize("kind", ["rgb", "depth", "normal"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "text", "empty", "other"])
def test_a_damaged_file_is_named(tmp_path, kind, damage):
    frame = put(tmp_path)
    path = getattr(frame, kind)
    whole = path.read_bytes()
    path.unlink()
    if damage == "other":
        Image.fromarray(IMAGE).save(path, "TIFF")
    elif damage != "missing":
        flipped = whole[:60] + bytes([whole[60] ^ 255]) + whole[61:]
        path.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "flipped": flipped,
                "text": b"no picture",
                "empty": b"",
            }[damage]
        )
    refused(frame, rf"{path} cannot be read .*fetch it again")


@pytest.mark.parametrize("amiss", ["missing", "unknown"])
def test_a_worker_names_the_file_in_one_line(tmp_path, amiss):
    frame = put(tmp_path, depth=np.full_like(DEPTH, 65535))
    if amiss == "missing":
        frame.depth.unlink()
    with pytest.raises(LinconError) as refusal:
        list(DataLoader(Frames([frame], 8), sampler=[[0]], batch_size=None, num_workers=1))
    assert str(refusal.value).startswith(f"{frame.depth} ") and "\n" not in str(refusal.value)
    traceback.clear_frames(refusal.tb)  # the worker goes now, not when garbage is collected


# Writing.


def scenes(n, size=16, seed=0):
    """Noise, with depth of whole steps and normals anywhere, a tenth of each not known."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 3, size, size), generator=random, dtype=torch.uint8)
    depth = torch.randint(1, 65535, (n, size, size), generator=random) / 512
    normals = torch.nn.functional.normalize(torch.randn(n, 3, size, size, generator=random), dim=1)
    depth[torch.rand(n, size, size, generator=random) < 0.1] = math.nan
    gone = torch.rand(n, 1, size, size, generator=random) < 0.1
    return Batch(images, depth, normals.masked_fill(gone, math.nan))


def again(root, area, size=16):
    frames = Frames(stanford.frames_of(root / f"area_{area}/data"), size)
    return frames[list(range(len(frames)))]


def degrees(one, other):
    """Angles between unit vectors (n, 3, ...); from the chord, which is exact where they are near."""
    return 2 * np.degrees(np.arcsin(np.linalg.norm(one - other, axis=1) / 2))


def test_what_was_written_is_read_as_it_was(tmp_path):
    batch = scenes(12)
    write(batch, tmp_path, "5a")
    read = again(tmp_path, "5a")
    assert read.images.equal(batch.images) and torch.equal(
        read.depth.nan_to_num(-1), batch.depth.nan_to_num(-1)
    )
    assert read.normals.isnan().equal(batch.normals.isnan())
    angles = degrees(read.normals.double().numpy(), batch.normals.double().numpy())
    assert np.nanmax(angles) <= 0.73 and np.nanmean(angles) < 0.2

    write(read, tmp_path, "3")
    for kind in ("rgb", "depth", "normal"):
        first, second = (
            sorted((tmp_path / f"area_{area}/data" / kind).iterdir()) for area in ("5a", "3")
        )
        assert [np.array(Image.open(p)).tolist() for p in first] == [
            np.array(Image.open(p)).tolist() for p in second
        ]
    assert all(
        a.nan_to_num(-9).equal(b.nan_to_num(-9))
        for a, b in zip(read, again(tmp_path, "3"), strict=True)
    )


def test_written_areas_are_those_of_the_data_set(tmp_path):
    write(scenes(2), tmp_path, "1")
    write(scenes(3, seed=1), tmp_path, "1", start=2)
    write(scenes(1), tmp_path, "5b")
    write(scenes(1), tmp_path, "1", start=1)
    training, testing, _ = stanford.read(tmp_path, train=("1",), test=("5b",), size=16)
    assert len(training) == 5 and len(testing) == 1
    assert training[[1, 2, 3, 4]].images.equal(
        torch.cat([scenes(1).images, scenes(3, seed=1).images])
    )
    name = training.frames[4].normal.name.split("_")
    assert (
        len(name[1]) == 32
        and int(name[1], 16)
        and name[2:] == ["office", "1", "frame", "4", "domain", "normals.png"]
    )
    assert name[1] != testing.frames[0].rgb.name.split("_")[1]  # no two areas share a camera
    assert all(
        path.suffix == ".png" for path in tmp_path.rglob("*.*")
    )  # nothing unfinished is left


def test_the_files_are_those_of_the_release(tmp_path):
    batch = Batch(
        torch.full((1, 3, 2, 2), 7, dtype=torch.uint8),
        torch.tensor([[[1.5, math.nan], [127.9999, 300.0]]]),
        torch.tensor(
            [[0.0, 0.0, 1.0], [math.nan, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]
        ).T.view(1, 3, 2, 2),
    )
    write(batch, tmp_path, "2")
    (frame,) = stanford.frames_of(tmp_path / "area_2/data")
    assert [path.read_bytes()[24:26] for path in frame] == [b"\x08\x02", b"\x10\x00", b"\x08\x02"]
    assert np.array(Image.open(frame.depth)).tolist() == [[768, 65535], [65534, 65534]]
    assert np.array(Image.open(frame.normal)).reshape(4, 3).tolist() == [
        [128, 128, 255],
        [128, 128, 128],
        [0, 128, 128],
        [204, 230, 128],
    ]


@settings(max_examples=100, deadline=None)
@given(metres=st.floats(2**-40, 127.875, width=32))
def test_depth_is_within_half_a_step(metres):
    (step,) = writing.steps(np.array([metres], np.float32)).tolist()
    assert 1 <= step < 65535 and (
        abs(step / 512 - metres) <= 1 / 1024 or (step == 1 and metres < 1 / 512)
    )


def test_every_direction_is_written_within_the_bound_and_none_as_not_known():
    """Over all colours that a unit vector can round to: their cubes reach the sphere, or nearly so."""
    highest = 0.0
    for octant in itertools.product((0, 128), repeat=3):
        grid = (
            np.indices((128, 128, 128), np.uint8).reshape(3, -1)
            + np.array(octant, np.uint8)[:, None]
        )
        length = np.sqrt(((grid - np.float32(127.5)) ** 2).sum(0))
        first = grid[:, abs(length - 127.5) <= 0.8661]
        assert len(first.T) == 44179 and not (first == 128).all(0).any()
        second = writing.rounded(stanford.directions(first))
        assert (writing.rounded(stanford.directions(second)) == second).all()  # stable
        assert not (second == 128).all(0).any()
        read = stanford.directions(second)
        for corner in itertools.product(
            (-0.5, 0.5), repeat=3
        ):  # no direction of a cube is farther than its corners
            reached = first - 127.5 + np.array(corner)[:, None]
            reached /= np.sqrt((reached**2).sum(0))
            highest = max(highest, degrees(read.T, reached.T).max())
    assert 0.7 < highest <= 0.73


def broken(**parts):
    return scenes(2)._replace(**parts)


@pytest.mark.parametrize(
    "batch, match",
    [
        (broken(depth=torch.ones(2, 16, 15)), r"view 5 is uint8 \(3, 16, 16\), depth \(16, 15\)"),
        (broken(normals=torch.ones(2, 3, 8, 8)), r"view 5 is .* normals \(3, 8, 8\)"),
        (broken(images=torch.ones(2, 3, 16, 16)), r"view 5 is float32"),
        (
            broken(depth=torch.stack([torch.ones(16, 16), -torch.eye(16)])),
            r"view 6 has a depth of -1.0 m",
        ),
        (broken(depth=torch.zeros(2, 16, 16)), r"view 5 has a depth of 0.0 m"),
        (
            broken(normals=torch.ones(2, 3, 16, 16)),
            r"view 5 has normals that are not of unit length",
        ),
        (
            broken(normals=torch.zeros(2, 3, 16, 16)),
            r"view 5 has normals that are not of unit length",
        ),
        (broken(depth=torch.full((2, 16, 16), math.nan)), r"view 5 has no pixel with known depth"),
        (broken(normals=torch.full((2, 3, 16, 16), math.nan)), r"view 5 has no pixel"),
    ],
)
def test_what_cannot_be_written_is_named_and_nothing_is(tmp_path, batch, match):
    with pytest.raises(LinconError, match=match):
        write(batch, tmp_path, "1", start=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("area", ["7", "area_1", "5", "../1", ""])
def test_an_area_that_is_none_is_refused(tmp_path, area):
    with pytest.raises(LinconError, match="is none of 2D-3D-Semantics: choose from 1, 2"):
        write(scenes(1), tmp_path, area)
