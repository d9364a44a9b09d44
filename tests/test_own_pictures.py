"""People and scenes of the user's own, in arrays."""

import numpy as np
import pytest
import torch

from lincon import LinconError
from lincon.tasks.experiments.task import find_task
from lincon.tasks.indoor.data.rooms import Rooms
from lincon.tasks.pose.data.figures import Figures

from .test_cli import call


def people(count=20):
    batch = Figures(count, 0, 32)[list(range(count))]
    joints = batch.joints.where(batch.known[..., None], torch.nan)
    pictures = batch.images.permute(0, 2, 3, 1)
    return {"x": pictures.numpy(), "joints": joints.numpy(), "head": batch.head.numpy()}


def scenes(count=20):
    batch = Rooms(count, 0, 32)[list(range(count))]
    return {
        "x": batch.images.numpy(),
        "depth": batch.depth.numpy(),
        "normals": batch.normals.numpy(),
    }


ARRAYS = {"pose": people, "indoor": scenes}
MODEL = {"pose": "hourglass-small:channels=8,stacks=1", "indoor": "small:width=0.25"}


def both(arrays):
    return {f"{name}_{part}": array for name, array in arrays.items() for part in ("train", "test")}


def of(task, path, **arrays):
    np.savez(path, **arrays)
    return find_task(task).data_set(str(path))()


def test_people_are_read_to_the_pixel(tmp_path):
    data = of("pose", tmp_path / "my.npz", **both(people()))
    right = Figures(20, 0, 32)[list(range(20))]
    found = data.train_set[list(range(20))]
    assert all(each.equal(other) for each, other in zip(found, right, strict=True))
    assert data.shape == (32,)


def test_a_head_that_is_not_given_is_that_of_lsp(tmp_path):
    joints = np.full((5, 16, 2), np.nan)
    joints[:, 8], joints[:4, 9] = (
        (10, 20),
        (10, 10),
    )  # neck and head top; of the last the neck alone
    data = of("pose", tmp_path / "my.npz", **both({"x": people(5)["x"], "joints": joints}))
    heads = data.test_set[list(range(5))].head
    assert heads[:4].tolist() == pytest.approx([0.6 * 10 * np.hypot(1, 2 / 3)] * 4)
    assert heads[4:].isnan().all() and data.test_set[[4]].known.sum() == 1


def test_scenes_are_read_to_the_pixel(tmp_path):
    data = of("indoor", tmp_path / "my.npz", **both(scenes()))
    right = Rooms(20, 0, 32)[list(range(20))]
    for each, other in zip(data.train_set[list(range(20))], right, strict=True):
        torch.testing.assert_close(each, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("task", ARRAYS)
def test_a_command_trains_on_them_and_says_how_they_were_split(task, tmp_path):
    np.savez(tmp_path / "my.npz", **ARRAYS[task]())
    arguments = ["--model", MODEL[task], "--batch", 4, "--epochs", 1, "--out", tmp_path / "out"]
    result = call("train", task, "--data", tmp_path / "my.npz", *arguments)
    assert result.exit_code == 0, result.output
    assert "4 pictures for the test" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("task", "change", "words"),
    [
        ("pose", lambda a: {**a, "joints": a["joints"][:, 0] / 32}, ["pixels"]),
        ("pose", lambda a: {**a, "joints": a["joints"][:, :, :15]}, ["joints", "16, 2"]),
        ("pose", lambda a: {**a, "x": a["x"] * 1.0}, ["x", "0 to 1"]),
        ("pose", lambda a: {**a, "x": a["x"][:, :30]}, ["x", "(20, 30, 32, 3)", "square"]),
        ("pose", lambda a: {**a, "head": a["head"] * np.nan}, ["head"]),
        ("pose", lambda a: {"x": a["x"], "y": a["x"]}, ["x, y", "joints", "head"]),
        ("indoor", lambda a: {**a, "depth": np.nan_to_num(a["depth"])}, ["depth holds 0", "NaN"]),
        ("indoor", lambda a: {**a, "normals": 2 * a["normals"]}, ["normals", "unit"]),
        ("indoor", lambda a: {**a, "depth": a["depth"][:, 1:]}, ["depth", "(20, 31, 32)"]),
        (
            "indoor",
            lambda a: {"x": a["x"][:3], "depth": a["depth"][:3], "normals": a["normals"][:3]},
            ["too few"],
        ),
    ],
)
def test_arrays_that_cannot_be_right_are_refused_by_name(task, change, words, tmp_path):
    with pytest.raises(LinconError) as refusal:
        of(task, tmp_path / "my.npz", **change(ARRAYS[task]()))
    said = str(refusal.value)
    assert "my.npz" in said and all(word in said for word in words) and "\n" not in said, said


def as_list():
    return [people()["x"]]


def test_what_is_of_classification_alone_is_refused(tmp_path):
    with pytest.raises(LinconError, match="dictionary"):
        find_task("pose").data_set(f"{__name__}:as_list")()
    with pytest.raises(LinconError, match=r"Unknown data set 'folder.*figures, mpii"):
        find_task("pose").data_set("folder")
    with pytest.raises(LinconError, match="no options"):
        find_task("indoor").data_set("my.npz:flip=1")
