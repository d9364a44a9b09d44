"""No command writes over a file that it did not make, its own inputs least of all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import lincon
from lincon import LinconError
from lincon.exporting import export
from lincon.tasks.experiments.output import check_replaceable, write_output

from .test_cli import call, refused

DIGITS = ["--epochs", 1, "--images", 64, "--seeds", 1]
SWEEPS = {
    "compare": ["--schemes", "vanilla,rpg"],
    "scaling": ["--model", "resnet-small", "--dof", "0.05,0.1,0.2,0.5"],
    "convergence": ["--dof", "0.5"],
    "generalization": ["--schemes", "vanilla", "--dof", "0.5"],
    "reproduce baselines": ["--model", "resnet-small,resnet-medium"],
}
RESULTS = "table.md", "results.json", "picture.png", "picture.svg", "predictions.png"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return train(tmp_path_factory, "--dof", 500, "--images", 64)


@pytest.fixture(scope="module")
def pose(tmp_path_factory):
    data = ["--data", "figures:size=32", "--images", 16, "--batch", 16]
    return train(tmp_path_factory, "pose", "--model", "hourglass-small:channels=8,stacks=1", *data)


@pytest.fixture(scope="module")
def indoor(tmp_path_factory):
    data = ["--data", "rooms:size=32", "--images", 8, "--batch", 8]
    return train(tmp_path_factory, "indoor", "--model", "small:width=0.25", *data)


def train(factory, *arguments):
    out = factory.mktemp("run")
    result = call("train", *arguments, "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def photograph(path, seed=0, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def contents(folder):
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Predictions.


@pytest.mark.parametrize(
    "spelling", ["{0}/p.png", "{0}/../d/p.png", "{0}/link.png", "{0}/hard.png"]
)
def test_a_skeleton_is_not_drawn_over_the_photograph(pose, tmp_path, spelling):
    folder = tmp_path / "d"
    photo = photograph(folder / "p.png")
    (folder / "link.png").symlink_to(photo)
    os.link(photo, folder / "hard.png")
    before = contents(folder)
    picture = spelling.format(folder)
    said = refused("predict", "pose", picture, "--run", pose, "--out", folder)
    assert "one of the pictures" in said and "--out" in said
    assert contents(folder) == before


def test_an_output_that_is_a_link_to_the_photograph_is_refused(pose, tmp_path):
    photo = photograph(tmp_path / "photos/p.png")
    (tmp_path / "out").mkdir()
    for make in (Path.symlink_to, Path.hardlink_to):
        make(tmp_path / "out/p.png", photo)
        said = refused("predict", "pose", photo, "--run", pose, "--out", tmp_path / "out")
        assert "one of the pictures" in said
        (tmp_path / "out/p.png").unlink()


def test_a_folder_spelled_through_a_link_is_the_same_folder(pose, tmp_path):
    photo = photograph(tmp_path / "photos/p.png")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "photos")
    before = photo.read_bytes()
    refused("predict", "pose", photo, "--run", pose, "--out", tmp_path / "elsewhere")
    assert photo.read_bytes() == before


def test_annotations_beside_a_photograph_are_kept(pose, tmp_path):
    photo = photograph(tmp_path / "p.jpg")
    labels = tmp_path / "p.json"
    labels.write_text(json.dumps({"image": "p.jpg", "box": [1, 2, 3], "joints": {}}))
    before = labels.read_bytes()
    said = refused("predict", "pose", photo, "--run", pose, "--out", tmp_path)
    assert str(labels) in said and not (tmp_path / "p.png").exists()
    assert labels.read_bytes() == before


def test_the_record_of_a_training_is_not_replaced_by_joints(pose, tmp_path):
    photo = photograph(tmp_path / "training.jpg")
    before = contents(pose)
    assert "training.json" in refused("predict", "pose", photo, "--run", pose, "--out", pose)
    assert contents(pose) == before


@pytest.mark.parametrize(("task", "ending"), [("pose", ""), ("indoor", "_depth")])
def test_a_second_call_replaces_what_the_first_wrote(task, ending, tmp_path, request):
    run, out = request.getfixturevalue(task), tmp_path / "out"
    photo = photograph(tmp_path / "p.png")
    for _ in range(2):
        result = call("predict", task, photo, "--run", run, "--out", out)
        assert result.exit_code == 0, result.output
    with Image.open(out / f"p{ending}.png") as written:
        assert written.size == (40, 30) and "Written by lincon predict" in written.info["Comment"]


@pytest.mark.parametrize("task", ["pose", "indoor"])
def test_pictures_of_one_name_do_not_share_their_outputs(task, tmp_path, request):
    run, out = request.getfixturevalue(task), tmp_path / "out"
    first, second = photograph(tmp_path / "a/p.png"), photograph(tmp_path / "b/p.jpg", seed=1)
    assert "one name" in refused("predict", task, first, second, "--run", run, "--out", out)
    assert call("predict", task, first, "--run", run, "--out", out).exit_code == 0
    before = contents(out)
    said = refused("predict", task, second, "--run", run, "--out", out)
    assert "SHA-256" in said and "another name or folder" in said
    assert contents(out) == before


@pytest.mark.parametrize("kind", ["depth", "depth_view", "normals", "normals_view"])
def test_a_measured_depth_map_is_not_replaced(indoor, tmp_path, kind):
    photo = photograph(tmp_path / "p.png")
    measured = photograph(tmp_path / f"p_{kind}.png", seed=2)
    before = contents(tmp_path)
    said = refused("predict", "indoor", photo, "--run", indoor, "--out", tmp_path)
    assert str(measured) in said and contents(tmp_path) == before


def test_a_prediction_that_is_an_input_again_is_not_replaced(indoor, tmp_path):
    photo, out = photograph(tmp_path / "p.png"), tmp_path / "out"
    assert call("predict", "indoor", photo, "--run", indoor, "--out", out).exit_code == 0
    again = ["predict", "indoor", photo, out / "p_normals.png", "--run", indoor, "--out", out]
    assert "one of the pictures" in refused(*again)


# Exports.


def test_an_export_does_not_replace_the_trained_model(digits, tmp_path):
    before = contents(digits)
    (tmp_path / "link.safetensors").symlink_to(digits / "model.safetensors")
    os.link(digits / "model.safetensors", tmp_path / "hard.safetensors")
    names = [digits / "model.safetensors", digits / "../" / digits.name / "model.safetensors"]
    for file in (*names, tmp_path / "link.safetensors", tmp_path / "hard.safetensors"):
        assert str(file) in refused("export", digits, file)
    assert contents(digits) == before and call("evaluate", digits).exit_code == 0


@pytest.mark.parametrize("ending", ["safetensors", "pt2", "onnx"])
def test_an_export_replaces_exports_alone(tmp_path, ending):
    model, example = nn.Linear(4, 3), torch.randn(2, 4)
    file = tmp_path / f"model.{ending}"
    for _ in range(2):
        export(model, file, example)
    file.write_bytes(b"of another program")
    with pytest.raises(LinconError, match=f"model.{ending} exists"):
        export(model, file, example)
    assert file.read_bytes() == b"of another program"


def test_an_export_does_not_replace_a_model_file(tmp_path):
    model = nn.Linear(4, 3)
    lincon.save(model, tmp_path / "model.safetensors")
    with pytest.raises(LinconError, match="exists and was not written by lincon export"):
        export(model, tmp_path / "model.safetensors", torch.randn(2, 4))
    assert lincon.inspect(tmp_path / "model.safetensors").total == 15


def test_an_eight_bit_export_replaces_no_other_program(digits, tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"of another program")
    assert "model.pt2 exists" in refused("export", digits, tmp_path / "model.pt2", "--int8")
    assert (tmp_path / "model.pt2").read_bytes() == b"of another program"


# Trainings.


@pytest.mark.parametrize("name", ["model.safetensors", "training.json", "phase-0.ckpt"])
def test_a_training_keeps_the_files_of_others(tmp_path, name):
    (tmp_path / name).write_bytes(b"[3, 4]")
    said = refused("train", "--epochs", 1, "--images", 64, "--out", tmp_path)
    assert "--out" in said
    assert contents(tmp_path) == {tmp_path / name: b"[3, 4]"}


def test_a_log_is_never_written_over(tmp_path):
    from lincon.tasks.experiments.training.trainer import make_logger

    for name in ("csv-phase-0", "csv-phase-0-2"):
        (tmp_path / "logs" / name).mkdir(parents=True)
    assert Path(make_logger("csv", tmp_path, "phase-0").log_dir).name == "csv-phase-0-1"


@pytest.mark.parametrize("command", ["prune", "quantize"])
@pytest.mark.parametrize("name", ["model.safetensors", "training.json", "tuned.json"])
def test_a_changed_model_replaces_no_other(digits, tmp_path, command, name):
    (tmp_path / name).write_bytes(b"of another")
    said = refused(command, digits, "--out", tmp_path)
    assert name in said and "another --out" in said
    assert contents(tmp_path) == {tmp_path / name: b"of another"}


def test_a_changed_model_is_not_left_where_it_came_from(digits, tmp_path):
    (tmp_path / "link").symlink_to(digits)
    for out in (digits, tmp_path / "link", digits / "../" / digits.name):
        assert "another folder" in refused("prune", digits, "--out", out)


# Experiments.


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("command", SWEEPS)
def test_an_experiment_keeps_the_files_of_others(tmp_path, command, name):
    """It says so before it trains."""
    (tmp_path / name).write_text("of another")
    said = refused(*command.split(), *SWEEPS[command], *DIGITS, "--out", tmp_path)
    assert str(tmp_path / name) in said and command in said
    assert contents(tmp_path) == {tmp_path / name: b"of another"}


def test_an_experiment_replaces_its_own_results_and_those_of_no_other(tmp_path):
    for _ in range(2):
        result = call("compare", *SWEEPS["compare"], *DIGITS, "--out", tmp_path)
        assert result.exit_code == 0, result.output
    before = contents(tmp_path)
    said = refused("convergence", "--dof", "0.5", *DIGITS, "--out", tmp_path)
    assert "not written by lincon convergence" in said and contents(tmp_path) == before


def test_a_cell_with_a_model_of_others_is_refused_before_any_training(tmp_path):
    cell = tmp_path / "runs/resnet-small-rpg-0.1-0"
    arguments = ["compare", "--schemes", "vanilla,rpg", "--dof", "0.1", *DIGITS, "--out", tmp_path]
    assert call(*arguments).exit_code == 0
    (cell,) = [path for path in (tmp_path / "runs").iterdir() if "rpg" in path.name]
    for path in cell.iterdir():
        path.unlink()
    (cell / "model.safetensors").write_bytes(b"of another")
    assert "model.safetensors, but no training" in refused(*arguments)
    assert contents(cell) == {cell / "model.safetensors": b"of another"}


# The mechanism.


@pytest.mark.parametrize("name", ["a.json", "a.md", "a.png"])
def test_a_marked_file_is_known_again(tmp_path, name):
    Image.new("L", (3, 3)).save(tmp_path / "picture.png")
    content = {"a.json": '{"x": 1}', "a.md": "x\n"}.get(name)
    content = content or (tmp_path / "picture.png").read_bytes()
    write_output(tmp_path / name, content, "Written by lincon a.")
    write_output(tmp_path / name, content, "Written by lincon a.")
    with pytest.raises(LinconError, match="not written by lincon b: give another name"):
        write_output(tmp_path / name, content, "Written by lincon b.")
    if name == "a.png":
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert picture.size == (3, 3) and picture.info["Comment"] == "Written by lincon a."


def test_links_and_folders_are_not_replaced(tmp_path):
    (tmp_path / "marked").write_text("Written by lincon a.")
    (tmp_path / "link").symlink_to(tmp_path / "marked")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    check_replaceable(tmp_path / "marked", "Written by lincon a.")
    check_replaceable(tmp_path / "nothing", "Written by lincon a.")
    for name in ("link", "dangling", "."):
        with pytest.raises(LinconError):
            check_replaceable(tmp_path / name, "Written by lincon a.")


def test_save_replaces_a_file_of_the_users_choice_and_no_folder(tmp_path):
    model = nn.Linear(4, 3)
    (tmp_path / "model.safetensors").write_bytes(b"of another")
    lincon.save(model, tmp_path / "model.safetensors")
    assert lincon.inspect(tmp_path / "model.safetensors").total == 15
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(LinconError, match="is a folder"):
            lincon.save(model, folder)
