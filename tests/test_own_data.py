"""Data of the user's own: files of arrays, functions, folders; read exactly, or refused by name."""

import json
import pickle
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lincon import LinconError
from lincon.tasks.classification.data.own import own_data
from lincon.tasks.classification.task import TASK

from .test_cli import call, refused

QUICK = ["--epochs", 1, "--scheme", "vanilla"]


def images(count=20, size=6, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, size, size), dtype=np.uint8)


def parts(**changes):
    arrays = {
        "x_train": images(),
        "y_train": np.arange(20) % 3,
        "x_test": images(10, seed=1),
        "y_test": np.arange(10) % 3,
    }
    return {**arrays, **changes}


def saved(path, **arrays):
    np.savez(path, **arrays)
    return TASK.data_set(str(path))


def refuse(make, *words, root=None):
    with pytest.raises(LinconError) as refusal:
        make(root=root)
    said = str(refusal.value)
    assert all(word in said for word in words) and "\n" not in said, said


# Files of arrays.


def test_a_file_of_four_arrays_is_read_to_the_pixel(tmp_path):
    data = saved(tmp_path / "my.npz", **parts())()
    assert data.shape == (1, 3, 6) and not data.note
    for split, part in ((data.train_set, "train"), (data.test_set, "test")):
        pixels, labels = split.tensors
        assert pixels.dtype == torch.uint8
        assert pixels.equal(torch.from_numpy(parts()[f"x_{part}"])[:, None])
        assert labels.tolist() == parts()[f"y_{part}"].tolist()


def test_one_pair_is_split_always_alike_and_the_note_says_so(tmp_path):
    x, y = images(103), np.arange(103) % 4
    one, again = (saved(tmp_path / "my.npz", x=x, y=y)(seed) for seed in (0, 1))
    assert one.test_set.tensors[0].equal(again.test_set.tensors[0])
    assert len(one.test_set) == 20 and len(one.train_set) == 83
    assert "20 images for the test" in one.note and "83 for training" in one.note
    assert one.test_set.labels.bincount().tolist() == [5, 5, 5, 5]
    both = torch.cat([one.train_set.tensors[0], one.test_set.tensors[0]])
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, x))  # each image once


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_be_first_or_last(tmp_path, channels):
    first = np.random.default_rng(0).random((20, channels, 6, 6))
    read = [
        saved(tmp_path / "my.npz", **parts(x_train=x, x_test=x[:10]))().train_set.tensors[0]
        for x in (first, first.transpose(0, 2, 3, 1))
    ]
    assert read[0].equal(read[1]) and read[0].equal(torch.from_numpy(first).float())


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x / 255,
        lambda x: (x / 255).astype(np.float32),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.int64),
        lambda x: x.astype(">u2"),
        lambda x: (x / 255 - 0.5) / 0.25,
    ],
)
def test_any_unit_comes_to_the_same_for_a_model(tmp_path, change):
    plain = saved(tmp_path / "plain.npz", **parts())()
    x, test = parts()["x_train"], parts()["x_test"]
    other = saved(tmp_path / "other.npz", **parts(x_train=change(x), x_test=change(test)))()
    right = (x / 255 - (x / 255).mean()) / (x / 255).std()
    for data in (plain, other):
        seen = data.prepared(data.train_set[list(range(20))], training=True).images
        torch.testing.assert_close(seen[:, 0].double(), torch.from_numpy(right), atol=1e-5, rtol=0)


def test_a_channel_without_contrast_is_no_division_by_zero(tmp_path):
    x = np.zeros((20, 2, 6, 6), np.float32)
    x[:, 1] = images() / 255
    data = saved(tmp_path / "my.npz", **parts(x_train=x, x_test=x[:10]))()
    seen = data.prepared(data.train_set[[0, 1]], training=False).images
    assert bool(seen.isfinite().all()) and not seen[:, 0].any()


NAN = np.where(images() > 250, np.nan, images().astype(float))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": NAN}, ["x_train", "NaN"]),
        ({"x_train": np.full((20, 6, 6), 1e300)}, ["x_train", "beyond float32"]),
        ({"x_train": images().astype(complex)}, ["x_train", "complex"]),
        ({"x_train": images()[:, :, :5]}, ["x_train", "(20, 6, 5)", "square"]),
        ({"x_train": images().reshape(20, 36)}, ["x_train", "(20, 36)", "square"]),
        ({"x_train": images(0)}, ["x_train", "(0, 6, 6)"]),
        ({"x_test": images(10, 7)}, ["(1, 6, 6)", "(1, 7, 7)", "alike"]),
        ({"x_test": images(10) / 255}, ["uint8", "float32", "alike"]),
        ({"x_train": images() * 1.0, "x_test": images(10) / 255}, ["255", "one unit"]),
        ({"y_train": np.arange(19) % 3}, ["y_train", "(19,)", "20 images"]),
        ({"y_train": np.eye(3)[np.arange(20) % 3]}, ["y_train", "(20, 3)", "argmax"]),
        ({"y_train": np.arange(20) % 3 + 1}, ["no training images of class 0"]),
        ({"y_train": np.arange(20) % 3 * 2}, ["no training images of class 1"]),
        ({"y_train": np.arange(20) % 3 - 1}, ["y_train", "-1 to 1"]),
        ({"y_train": np.arange(20) % 3 + 0.5}, ["y_train", "not whole"]),
        ({"y_train": np.where(np.arange(20) > 9, np.nan, 1)}, ["y_train", "not whole"]),
        ({"y_train": np.zeros(20), "y_test": np.zeros(10)}, ["images of one class only"]),
        ({"y_test": np.arange(10) % 4}, ["no training images of class 3"]),
        ({"y_train": np.array(["cat", "dog"] * 10)}, ["y_train", "return_inverse"]),
        ({"y_train": np.full(20, 1 << 40)}, ["y_train", "labels from"]),
    ],
)
def test_arrays_that_cannot_be_right_are_refused_by_name(tmp_path, changes, words):
    refuse(saved(tmp_path / "my.npz", **parts(**changes)), "my.npz", *words)


def test_labels_as_whole_floats_or_in_a_column_are_labels(tmp_path):
    for labels in (np.arange(20.0) % 3, (np.arange(20) % 3)[:, None], (np.arange(20) % 3) > 1):
        data = saved(tmp_path / "my.npz", **parts(y_train=labels, y_test=labels[:10]))()
        assert data.train_set.labels.tolist() == labels.reshape(-1).astype(int).tolist()


def test_other_names_are_refused_with_those_that_are_there(tmp_path):
    refuse(saved(tmp_path / "my.npz", train_images=images()), "train_images", "x_train", "y_test")
    refuse(saved(tmp_path / "my.npz", x=images(4), y=np.arange(4)), "4 images", "too few")


class Opened:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_no_file_is_unpickled_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "my.npz"
    np.savez(path, **parts(y_train=np.array([Opened()] * 20, dtype=object)), allow_pickle=True)
    refuse(TASK.data_set(str(path)), "my.npz", "objects")
    np.savez(path, **parts())
    whole = path.read_bytes()
    for content in (whole[:-50], whole[:100], b"", b"<html>", pickle.dumps(Opened())):
        path.write_bytes(content)
        refuse(TASK.data_set(str(path)), "my.npz", "cannot be read")
    np.save(tmp_path / "array.npy", images())
    path.write_bytes((tmp_path / "array.npy").read_bytes())
    refuse(TASK.data_set(str(path)), "my.npz", "cannot be read")
    path.unlink()
    refuse(TASK.data_set(str(path)), "my.npz", "missing")


def test_options_shift_and_mirror_training_images_alone(tmp_path):
    np.savez(tmp_path / "my.npz", **parts())
    still, moved = (TASK.data_set(f"{tmp_path / 'my.npz'}{o}")() for o in ("", ":shift=2,flip=1"))
    batch = still.train_set[list(range(20))]
    torch.manual_seed(0)
    assert still.prepared(batch, True).images.equal(still.prepared(batch, False).images)
    assert not moved.prepared(batch, True).images.equal(moved.prepared(batch, False).images)
    assert moved.prepared(batch, False).images.equal(still.prepared(batch, False).images)
    with pytest.raises(LinconError, match=r"option of .*my.npz.*'turn'.*shift, flip"):
        TASK.data_set(f"{tmp_path / 'my.npz'}:turn=1")


# Functions.


class Pair(Dataset[Any]):
    """Images and labels as a user's own class gives them."""

    def __init__(self, x, y, form, noise=0.0):
        self.x, self.y, self.form, self.noise = x, y, form, noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        image = self.form(self.x[index])
        return image + self.noise * torch.randn(6, 6) if self.noise else image, self.y[index]


class Module(lightning.LightningDataModule):
    def setup(self, stage):
        p = parts()
        self.sets = {
            part: TensorDataset(torch.from_numpy(p[f"x_{part}"]), torch.tensor(p[f"y_{part}"]))
            for part in ("train", "test")
        }

    def train_dataloader(self):
        return DataLoader(self.sets["train"], batch_size=3, shuffle=True)

    def test_dataloader(self):
        return DataLoader(self.sets["test"])


class WithoutTest(Module):
    test_dataloader = lightning.LightningDataModule.test_dataloader

    def val_dataloader(self):
        return DataLoader(self.sets["test"])


class SeveralLoaders(Module):
    def train_dataloader(self):
        return [super().train_dataloader()] * 2


def four():
    return [parts()[name] for name in ("x_train", "y_train", "x_test", "y_test")]


def tensors():
    return tuple(map(torch.as_tensor, four()))


def pairs():
    x, y, a, b = four()
    return (x, y), (a, b)


def sets(form=torch.from_numpy, noise=0.0):
    return [Pair(x, y, form, noise) for x, y in pairs()]


def pictures():
    return sets(Image.fromarray)


def augmented():
    return sets(lambda x: torch.from_numpy(x) / 255, noise=0.5)


def nothing():
    return None


def odd():
    return sets(lambda x: "a path")


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self):
        return iter(())

    def __len__(self):
        return 3


def stream():
    return [Stream(), Stream()]


HERE = __name__


@pytest.mark.parametrize(
    "function",
    ["four", "tensors", "pairs", "parts", "sets", "pictures", "Module", "WithoutTest"],
)
def test_a_function_may_return_arrays_data_sets_or_a_data_module(function):
    data = TASK.data_set(f"{HERE}:{function}")()
    assert data.shape == (1, 3, 6)
    assert data.train_set.tensors[0].equal(torch.from_numpy(parts()["x_train"])[:, None])
    assert data.test_set.labels.tolist() == parts()["y_test"].tolist()


def test_items_that_are_drawn_anew_are_read_anew():
    data = TASK.data_set(f"{HERE}:augmented")(limit=12)
    assert not data.train_set[[0]].images.equal(data.train_set[[0]].images)
    assert data.train_set[[3, 1]].labels.tolist() == data.train_set.labels[[3, 1]].tolist()
    assert len(data.train_set) == 12 and data.train_set.labels.bincount().tolist() == [4, 4, 4]
    assert (
        data.train_set.fingerprint()
        == TASK.data_set(f"{HERE}:augmented")(limit=12).train_set.fingerprint()
    )


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("nothing", ["NoneType", "x_train", "LightningDataModule"]),
        ("odd", ["images are of str", "PIL"]),
        ("stream", ["stream", "by index"]),
        ("SeveralLoaders", ["list", "one DataLoader"]),
    ],
)
def test_what_a_function_returns_is_refused_by_name(function, words):
    refuse(TASK.data_set(f"{HERE}:{function}"), f"{HERE}:{function}", *words)


def test_a_function_gets_the_root_that_it_asks_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rooted.py").write_text(
        "import numpy as np\n\ndef read(root):\n    return dict(np.load(root / 'my.npz'))\n"
    )
    np.savez(tmp_path / "my.npz", **parts())
    assert len(own_data("rooted:read")(root=tmp_path).train_set) == 20


def test_a_module_or_function_that_is_not_there_is_one_line():
    for name, word in (("nowhere:f", "nowhere"), (f"{HERE}:f", "'f'")):
        with pytest.raises(LinconError, match=word):
            TASK.data_set(name)


# Folders.


def write_folders(root, *folders, size=(9, 12)):
    for number, folder in enumerate(folders):
        for index in range(6):
            path = root / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (40 * number, 8 * index, 99)).save(path)


@pytest.mark.parametrize("test", ["test", "val"])
def test_class_folders_of_any_size_are_read(tmp_path, test):
    write_folders(tmp_path, "train/cat", "train/dog", f"{test}/cat", f"{test}/dog")
    data = TASK.data_set("folder:size=8")(root=tmp_path)
    assert data.shape == (3, 2, 8) and len(data.train_set) == len(data.test_set) == 12
    batch = data.train_set[[0, 11]]
    assert batch.images.shape == (2, 3, 8, 8) and batch.labels.tolist() == [0, 1]
    assert batch.images[1, :, 4, 4].tolist() == [40, 40, 99]
    assert data.train_set[[11]].images.equal(batch.images[1:])  # kept


def test_class_folders_alone_are_split(tmp_path):
    write_folders(tmp_path, "cat", "dog", "owl")
    data = TASK.data_set("folder:size=8")(root=tmp_path)
    assert len(data.test_set) == 3 and len(data.train_set) == 15 and "3 images" in data.note
    assert data.train_set.labels.bincount().tolist() == [5, 5, 5]


def test_folders_are_refused_by_name(tmp_path):
    refuse(TASK.data_set("folder"), "--root")
    write_folders(tmp_path, "train/cat", "train/dog", "test/cat", "test/cow")
    refuse(TASK.data_set("folder"), "cow", root=tmp_path)
    write_folders(tmp_path / "one", "cat")
    refuse(TASK.data_set("folder"), "one class only", root=tmp_path / "one")


# Commands.


def test_own_data_and_an_own_model_make_a_table_and_edited_data_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.py").write_text(
        "from torch import nn\n\n\ndef net(channels, classes, size):\n"
        "    n = channels * size * size\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(n, 8), nn.Linear(8, 8), nn.Linear(8, classes))\n"
    )
    np.savez("my.npz", x=images(50), y=np.arange(50) % 5)
    compare = [
        "compare",
        "--data",
        "my.npz:shift=1",
        "--model",
        "ours:net",
        "--schemes",
        "vanilla,rpg",
    ]
    compare += ["--dof", 0.5, "--seeds", 1, "--epochs", 1, "--out", "out"]
    result = call(*compare)
    assert result.exit_code == 0 and "my.npz was split by lincon" in result.stdout
    assert (
        json.loads((tmp_path / "out/results.json").read_text())["recipe"]["data"]
        == "my.npz:shift=1"
    )
    np.savez("my.npz", x=images(50), y=np.arange(50)[::-1] % 5)
    assert "training items" in refused(*compare)


def test_shifts_of_images_in_an_unknown_unit_are_refused(tmp_path):
    np.savez(tmp_path / "my.npz", **parts(x_train=images() * 1.0, x_test=images(10) * 1.0))
    said = refused("generalization", "--data", tmp_path / "my.npz", "--out", tmp_path / "out")
    assert "black and white" in said
