"""ImageNet's folders of images."""

import traceback

import numpy as np
import pytest
import torch
from PIL import Image

from lincon import LinconError
from lincon.errors import LinconWarning
from lincon.tasks.classification.data import folders
from lincon.tasks.classification.data.folders import ImageNet

from .classification_files import labels_of, some_bytes, write_image, write_imagenet


def test_image_folders_are_read_to_the_pixel(tmp_path):
    train, test = write_imagenet(tmp_path)
    (tmp_path / "train/n01/.hidden").touch()
    data = ImageNet(root=tmp_path)
    assert (
        data.classes == 2
        and data.train_set.labels.tolist() == data.test_set.labels.tolist() == [0, 1]
    )
    images, labels = data.train_set[[1]]
    assert labels.tolist() == [1] and images[0].equal(train[:, 22:278].permute(2, 0, 1))
    images, _ = data.test_set[[1]]
    assert images[0].equal(test[38:262, 16:240].permute(2, 0, 1)) and images.dtype == torch.uint8
    images, _ = next(iter(data.evaluation_loader(train=True)))
    assert images.shape == (2, 3, 224, 224) and images[1].equal(
        train[16:240, 38:262].permute(2, 0, 1)
    )
    assert data.augment(torch.rand(2, 3, 256, 256)).shape == (2, 3, 224, 224)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_images_of_every_mode_become_rgb_of_the_size(tmp_path, mode):
    image = Image.fromarray(some_bytes(40, 90, 3)).convert(mode)
    image.save(tmp_path / "image", "JPEG" if mode == "CMYK" else "PNG")
    assert folders.decode(tmp_path / "image", 224).shape == (3, 224, 224)


def test_the_shorter_side_is_resized_to_256(tmp_path):
    halves = np.zeros((512, 1024, 3), np.uint8)
    halves[:, 512:] = 255
    write_image(tmp_path / "image", halves)
    decoded = folders.decode(tmp_path / "image", 224)
    assert decoded[:, :, :110].max() == 0 and decoded[:, :, 114:].min() == 255


@pytest.mark.parametrize("workers", [False, True])
def test_a_truncated_or_false_image_is_named(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(folders, "TINY", 0 if workers else 1000)
    write_imagenet(tmp_path)
    path = tmp_path / "val/n02/ILSVRC2012_val_1.JPEG"
    write_image(path, some_bytes(256, 256, 3), "JPEG")
    whole = path.read_bytes()
    data = ImageNet(root=tmp_path)
    assert labels_of(data.val_dataloader()).tolist() == [0, 1]
    for content in (whole[: len(whole) // 2], b"no image", b""):
        path.write_bytes(content)
        with pytest.raises(LinconError, match=rf"^{path} cannot be read as a picture") as refusal:
            list(data.val_dataloader())
        assert "\n" not in str(refusal.value)
        traceback.clear_frames(refusal.tb)  # workers go now, not when garbage is collected


def test_a_test_class_missing_in_training_is_named(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val/n02").rename(tmp_path / "val/n03")
    with pytest.raises(
        LinconError, match="val/n03 is a class that the training images do not have"
    ):
        ImageNet(root=tmp_path)


def test_missing_and_empty_folders_are_named(tmp_path):
    for root in (None, tmp_path):
        with pytest.raises(LinconError, match="--root FOLDER with train/<class>/ and val/<class>/"):
            ImageNet(root=root)
    write_imagenet(tmp_path)
    (tmp_path / "train/n01/n01_1.JPEG").unlink()
    with pytest.raises(LinconError, match="train/n01 holds no images"):
        ImageNet(root=tmp_path)


def test_a_limit_of_files_is_stratified(tmp_path):
    for wnid in ("n01", "n02"):
        for number in range(4):
            write_image(tmp_path / f"train/{wnid}/{number}.JPEG", some_bytes(8, 8, 3))
        write_image(tmp_path / f"val/{wnid}/0.JPEG", some_bytes(8, 8, 3))
    data = ImageNet(root=tmp_path, limit=4)
    assert data.train_set.labels.tolist() == [0, 0, 1, 1]
    assert [path.parent.name for path in data.train_set.paths] == ["n01", "n01", "n02", "n02"]


# What tools leave behind.

FILES = ".DS_Store", "Thumbs.db", "desktop.ini", "._n01_1.JPEG", "n01_1.JPEG~", ".n01_1.JPEG.swp"
FOLDERS = ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "$RECYCLE.BIN", "#recycle"


@pytest.mark.parametrize("part", ["train", "val"])
def test_what_tools_leave_behind_is_no_class_and_no_image(tmp_path, part):
    """Labels do not shift, and nothing is said: the tests take a warning for a failure."""
    write_imagenet(tmp_path)
    expected = ImageNet(root=tmp_path)
    for place in (tmp_path / part, tmp_path / part / "n01", tmp_path):
        for name in FILES:
            (place / name).write_bytes(b"x")
        for name in FOLDERS:
            write_image(place / name / "copy.png", some_bytes(8, 8, 3))
    data = ImageNet(root=tmp_path)
    assert data.classes == 2
    for split, other in ((data.train_set, expected.train_set), (data.test_set, expected.test_set)):
        assert split.paths == other.paths and split.labels.equal(other.labels)


def test_what_is_no_picture_is_left_out_and_counted(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "train/classes.txt").write_text("n01 n02")
    (tmp_path / "train/n01/boxes.xml").write_text("<a/>")
    (tmp_path / "train/n02/README").write_text("text")
    (tmp_path / "train/n02/more").mkdir()
    said = r"Left out of .*train: 4 entries .*, classes.txt, n01/boxes.xml, n02/more/, 1 more"
    with pytest.warns(LinconWarning, match=said):
        data = ImageNet(root=tmp_path)
    assert [path.name for path in data.train_set.paths] == ["n01_1.JPEG", "n02_1.JPEG"]


def test_a_picture_needs_no_ending(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val/n01/ILSVRC2012_val_1.JPEG").rename(tmp_path / "val/n01/0a1b2c")
    assert ImageNet(root=tmp_path).test_set.paths[0].name == "0a1b2c"


def test_a_class_of_other_files_alone_says_what_they_are(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val/n01/ILSVRC2012_val_1.JPEG").rename(tmp_path / "val/n01/image.txt")
    with pytest.raises(LinconError, match=r"val/n01 holds no images, but image.txt: fill or"):
        ImageNet(root=tmp_path)


def test_a_link_to_nothing_is_not_skipped(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val/n01/ILSVRC2012_val_0.JPEG").symlink_to(tmp_path / "gone.JPEG")
    with pytest.raises(LinconError, match=r"ILSVRC2012_val_0.JPEG cannot be read as a picture"):
        ImageNet(root=tmp_path).test_set[[0]]


def test_a_file_in_the_place_of_the_classes_is_refused(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val").rename(tmp_path / "valid")
    (tmp_path / "val").write_bytes(b"x")
    with pytest.raises(LinconError, match="val is a file, where a folder is expected: pass --root"):
        ImageNet(root=tmp_path)


@pytest.mark.parametrize("place, root", [("ILSVRC2012", "."), (".", "train"), ("a/b", ".")])
def test_folders_of_classes_elsewhere_are_named(tmp_path, place, root):
    write_imagenet(tmp_path / place)
    seems = (tmp_path / place).resolve()
    with pytest.raises(LinconError, match=f"train is missing: .*It seems to be in {seems}: give"):
        ImageNet(root=tmp_path / root)


def test_an_archive_of_images_is_to_be_unpacked(tmp_path):
    archive = tmp_path / "ILSVRC2012_img_train.tar"
    archive.write_bytes(b"x")
    with pytest.raises(LinconError, match=r"archives to unpack: ILSVRC2012_img_train.tar"):
        ImageNet(root=tmp_path)
    with pytest.raises(LinconError, match=r"tar is a file, .*: unpack it, and give the folder"):
        ImageNet(root=archive)
