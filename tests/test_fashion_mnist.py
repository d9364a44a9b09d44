"""IDX files: read to the pixel, or refused by name."""

import gzip

import numpy as np
import pytest

from lincon import LinconError
from lincon.tasks.classification.data import idx
from lincon.tasks.classification.data.idx import FashionMNIST

from .classification_files import idx_bytes, some_bytes, write_fashion


def test_fewer_pixels_are_the_means_of_those_that_they_cover(tmp_path):
    train, *_ = write_fashion(tmp_path, False)
    data = FashionMNIST(root=tmp_path, size=14)
    blocks = train.float().view(-1, 14, 2, 14, 2).mean((2, 4))
    assert data.shape == (1, 10, 14)
    assert (data.train_set.tensors[0][:, 0].float() - blocks).abs().max() <= 0.5
    images, _ = data.prepared(data.train_set[[0, 1]], training=True)
    assert images.shape == (2, 1, 14, 14)


def test_more_pixels_than_there_are_is_refused():
    with pytest.raises(LinconError, match="size is 32; the images of fashion-mnist have 28"):
        FashionMNIST(size=32)


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_are_read_to_the_pixel(tmp_path, compress):
    train, labels, test, test_labels = write_fashion(tmp_path, compress)
    data = FashionMNIST(root=tmp_path)
    assert data.train_set.tensors[0].equal(train[:, None]) and data.train_set.tensors[1].equal(
        labels.long()
    )
    assert data.test_set.tensors[0].equal(test[:, None]) and data.test_set.tensors[1].equal(
        test_labels.long()
    )


def refuse_fashion(folder, match):
    with pytest.raises(LinconError, match=match) as refusal:
        FashionMNIST(root=folder)
    assert "\n" not in str(refusal.value) and str(folder) in str(refusal.value)


@pytest.mark.parametrize("length", [4719, 4721])
@pytest.mark.parametrize("compress", [False, True])
def test_idx_files_of_another_length_are_named_with_both_lengths(tmp_path, length, compress):
    write_fashion(tmp_path, compress=False)
    path = tmp_path / idx.FILES[0]
    content = (path.read_bytes() + b"0")[:length]
    if compress:
        path.unlink()
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content)
    path.write_bytes(content)
    refuse_fashion(tmp_path, rf"{path.name} has {length} bytes .* 4720")


def test_a_truncated_or_false_gz_is_named(tmp_path):
    write_fashion(tmp_path, compress=True)
    path = tmp_path / f"{idx.FILES[2]}.gz"
    whole = path.read_bytes()
    for content in (whole[:-20], b"no gz", whole[:200] + bytes(50) + whole[250:]):
        path.write_bytes(content)
        refuse_fashion(tmp_path, rf"{path.name} cannot be read")


@pytest.mark.parametrize("start", [b"", b"\0\0", b"\0\0\x08\x01", b"\0\0\x0d\x03", b"\x08\x03\0\0"])
def test_another_magic_number_is_named(tmp_path, start):
    write_fashion(tmp_path, compress=False)
    path = tmp_path / idx.FILES[0]
    path.write_bytes(start + path.read_bytes()[4:] if len(start) == 4 else start)
    refuse_fashion(tmp_path, rf"{path.name} begins with {start.hex()},.* 00000803")


def test_a_file_that_ends_in_its_header_is_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    path = tmp_path / idx.FILES[0]
    path.write_bytes(path.read_bytes()[:10])
    refuse_fashion(tmp_path, rf"{path.name} has 10 bytes")


def test_images_of_another_size_are_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    (tmp_path / idx.FILES[0]).write_bytes(idx_bytes(some_bytes(6, 8, 8)))
    refuse_fashion(tmp_path, "6 x 8 x 8 bytes, not n x 28 x 28")


def test_more_images_than_labels_are_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    (tmp_path / idx.FILES[3]).write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    refuse_fashion(tmp_path, r"4 images, .*t10k-labels-idx1-ubyte 3 labels")


def test_a_label_of_no_class_is_refused(tmp_path):
    write_fashion(tmp_path, compress=False)
    (tmp_path / idx.FILES[1]).write_bytes(idx_bytes(np.array([0, 1, 10, 2, 3, 4], np.uint8)))
    refuse_fashion(tmp_path, r"train-labels-idx1-ubyte holds a label 10")


def test_missing_files_are_named_with_where_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "PACKAGED", tmp_path)
    with pytest.raises(LinconError, match=r"dataset-fashion-mnist.*--root FOLDER") as refusal:
        FashionMNIST()
    assert all(name in str(refusal.value) for name in idx.FILES)
    write_fashion(tmp_path, compress=True)
    (tmp_path / f"{idx.FILES[1]}.gz").unlink()
    with pytest.raises(LinconError, match=idx.FILES[1]) as refusal:
        FashionMNIST()
    assert not any(name in str(refusal.value) for name in (idx.FILES[0], *idx.FILES[2:]))


@pytest.mark.skipif(not idx.PACKAGED.exists(), reason="Debian's package is not installed")
def test_the_packaged_fashion_mnist_is_the_published_one():
    data = FashionMNIST()
    assert len(data.train_set) == 60_000 and len(data.test_set) == 10_000
    assert data.train_set.labels.bincount().tolist() == [6000] * 10
    pixels = data.train_set.tensors[0].float() / 255
    assert pixels.mean().item() == pytest.approx(data.mean.item(), abs=1e-4)
    assert pixels.std().item() == pytest.approx(data.std.item(), abs=1e-4)


# Files as Kaggle, browsers and others name them.

NAMES = {
    "Kaggle": lambda name: name.replace("-idx", ".idx"),
    "Kaggle's folder": lambda name: f"{name}/{name}",
    "Kaggle's folder and name": lambda name: f"{name.replace('-idx', '.idx')}/{name}",
    "a browser": lambda name: f"{name} (1)",
    "another browser": lambda name: f"{name}(2)",
    "macOS": lambda name: f"{name} 2",
    "wget": lambda name: f"{name}.1",
}


@pytest.mark.parametrize("rename", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("compress", [False, True])
def test_files_are_found_under_the_names_that_they_are_given(tmp_path, rename, compress):
    arrays = write_fashion(tmp_path, compress)
    for name in idx.FILES:
        path = tmp_path / (f"{name}.gz" if compress else name)
        content = path.read_bytes()
        path.unlink()
        other = tmp_path / (rename(name) + (".gz" if compress else ""))
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(content)
    assert FashionMNIST(root=tmp_path).train_set.tensors[0].equal(arrays[0][:, None])


def test_a_browsers_copy_of_a_gz_is_found(tmp_path):
    arrays = write_fashion(tmp_path, compress=True)
    for name in idx.FILES:
        (tmp_path / f"{name}.gz").rename(tmp_path / f"{name}.gz (1)")
    assert FashionMNIST(root=tmp_path).test_set.tensors[0].equal(arrays[2][:, None])


@pytest.mark.parametrize("compress", [False, True])
def test_whether_a_file_is_compressed_shows_in_it_and_not_in_its_name(tmp_path, compress):
    arrays = write_fashion(tmp_path, compress)
    for name in idx.FILES:
        before, after = (name, f"{name}.gz")[:: -1 if compress else 1]
        (tmp_path / before).rename(tmp_path / after)
    assert FashionMNIST(root=tmp_path).train_set.tensors[0].equal(arrays[0][:, None])


def test_a_file_of_its_own_name_comes_before_copies(tmp_path):
    arrays = write_fashion(tmp_path, compress=False)
    (tmp_path / f"{idx.FILES[0]} (1)").write_bytes(b"a download that was cut")
    (tmp_path / f"._{idx.FILES[0]}").write_bytes(b"x")
    assert FashionMNIST(root=tmp_path).train_set.tensors[0].equal(arrays[0][:, None])


def test_several_copies_are_not_chosen_from(tmp_path):
    write_fashion(tmp_path, compress=False)
    content = (tmp_path / idx.FILES[0]).read_bytes()
    (tmp_path / idx.FILES[0]).unlink()
    for number in (1, 2):
        (tmp_path / f"{idx.FILES[0]} ({number})").write_bytes(content)
    refuse_fashion(tmp_path, r"several copies of train-images-idx3-ubyte: .*; remove all but one")


def test_names_that_are_somewhat_alike_are_listed(tmp_path):
    (tmp_path / "train_images_idx3.bin").write_bytes(b"x")
    refuse_fashion(tmp_path, r"lacks train-images-idx3-ubyte\[.gz\].*there: train_images_idx3.bin")


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "archive"])
def test_a_folder_further_down_is_named(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    write_fashion(tmp_path / folder, compress=True)
    refuse_fashion(tmp_path, rf"It seems to be in {tmp_path / folder}: give that with --root")


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "archive.zip").write_bytes(b"PK\3\4")
    refuse_fashion(tmp_path, r"archives to unpack: archive\.zip")
    refuse_fashion(tmp_path / "archive.zip", r"zip is a file, .*: unpack it, and give the folder")


@pytest.mark.parametrize(
    "content, said",
    [
        (b"PK\3\4 and so on", "a zip archive, so unpack it"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"404: Not Found", "it is text"),
        (b"\xff\xfe", "fetch it again"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_what_is_in_the_place_of_a_file_is_named(tmp_path, content, said, ending):
    write_fashion(tmp_path, compress=bool(ending))
    (tmp_path / (idx.FILES[0] + ending)).write_bytes(content)
    refuse_fashion(tmp_path, said)
