"""Cached results are those of today's code and data, and no table replaces that of another experiment."""

import itertools
import json
import os
import sys

import numpy as np
import pytest
import torch

import lincon
from lincon.tasks.classification.data.idx import FILES
from lincon.tasks.experiments.training.fingerprints import code_of

from .classification_files import write_fashion
from .test_cli import call, refused

QUICK = ["--epochs", 1, "--images", 64, "--seeds", 1]
NET = """
from torch import nn
{imports}

def net(channels, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, {width}), nn.{activation}(),
                         nn.Linear({width}, {width}), nn.Linear({width}, classes))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes the model of a user, as an editor would between two calls of the command."""
    monkeypatch.chdir(tmp_path)
    name, seconds = f"mine_{tmp_path.name}".replace("-", "_"), itertools.count()

    def write(width=12, activation="ReLU", imports=""):
        sys.modules.pop(name, None)
        text = NET.format(width=width, activation=activation, imports=imports)
        (tmp_path / f"{name}.py").write_text(text)
        stamp = os.stat(tmp_path / f"{name}.py").st_mtime_ns + next(seconds) * 10**9
        os.utime(tmp_path / f"{name}.py", ns=(stamp, stamp))  # Python compares whole seconds
        return f"{name}:net"

    return write


def results(folder):
    return json.loads((folder / "results.json").read_text())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("edit", [{"width": 10}, {"activation": "GELU"}])
@pytest.mark.parametrize("command", ["compare", "generalization"])
def test_after_an_edit_of_the_model_no_old_number_is_shown(mine, tmp_path, edit, command):
    arguments = [command, "--model", mine(), "--schemes", "vanilla,rpg", "--dof", 0.5, *QUICK]
    assert call(*arguments, "--out", tmp_path / "out").exit_code == 0
    before = contents(tmp_path / "out")
    mine(**edit)
    said = refused(*arguments, "--out", tmp_path / "out")
    assert "code of mine_" in said and "another training" in said
    assert ("tensors" in said) == ("width" in edit)
    assert contents(tmp_path / "out") == before
    assert call(*arguments, "--out", tmp_path / "new").exit_code == 0
    assert results(tmp_path / "new")["runs"] != results(tmp_path / "out")["runs"]


def test_an_unedited_model_goes_on_where_it_was(mine, tmp_path):
    arguments = [
        "compare",
        "--model",
        mine(),
        "--schemes",
        "vanilla",
        *QUICK,
        "--out",
        tmp_path / "out",
    ]
    assert call(*arguments).exit_code == 0
    (run,) = (tmp_path / "out/runs").glob("*/run.json")
    before = run.stat().st_mtime_ns
    assert call(*arguments).exit_code == 0 and run.stat().st_mtime_ns == before


def test_an_edit_of_a_module_that_the_model_imports_is_seen(mine, tmp_path):
    blocks = tmp_path / f"blocks_{tmp_path.name.replace('-', '_')}.py"
    blocks.write_text("SCALE = 1\n\ndef f():\n    return SCALE\n")
    for imports in (f"import {blocks.stem}", f"from {blocks.stem} import f"):
        arguments = ["compare", "--model", mine(imports=imports), "--schemes", "vanilla", *QUICK]
        arguments += ["--out", tmp_path / imports.split()[0]]
        assert call(*arguments).exit_code == 0
        before = blocks.read_text()
        blocks.write_text(before.replace("1", "2"))
        assert f"code of {blocks.stem}" in refused(*arguments)
        blocks.write_text(before)
        assert call(*arguments).exit_code == 0


def test_an_interrupted_training_of_an_edited_model_is_not_gone_on_with(mine, tmp_path):
    arguments = [
        "train",
        "--model",
        mine(),
        "--images",
        64,
        "--epochs",
        3,
        "--out",
        tmp_path / "out",
    ]
    assert call(*arguments).exit_code == 0
    record = tmp_path / "out/training.json"
    description = json.loads(record.read_text())
    record.write_text(json.dumps({**description, "unfinished": True}))
    torch.save({}, tmp_path / "out/phase-0.ckpt")
    mine(activation="GELU")
    said = refused(*arguments, "--resume")
    assert "holds another training" in said and "code of mine_" in said


def test_a_trained_model_whose_code_was_edited_is_measured_with_a_warning(mine, tmp_path):
    call("train", "--model", mine(), "--images", 64, "--epochs", 1, "--out", tmp_path / "out")
    assert call("evaluate", tmp_path / "out").exit_code == 0
    mine(activation="GELU")
    with pytest.warns(lincon.LinconWarning, match=r"source of mine_\w+ has changed"):
        assert call("evaluate", tmp_path / "out").exit_code == 0


def test_a_trained_model_is_measured_on_other_data_with_a_warning(mine, tmp_path):
    images = np.random.default_rng(0).integers(256, size=(40, 8, 8), dtype=np.uint8)
    arguments = ["train", "--data", "my.npz", "--model", mine(), "--epochs", 1, "--out", "out"]
    np.savez("my.npz", x=images, y=np.arange(40) % 4)
    assert call(*arguments).exit_code == 0 and call("evaluate", "out").exit_code == 0
    np.savez("my.npz", x=images, y=np.arange(40)[::-1] % 4)
    with pytest.warns(lincon.LinconWarning, match="test items of my.npz are not those"):
        assert call("evaluate", "out").exit_code == 0
    with pytest.warns(lincon.LinconWarning, match="test items of my.npz are not those"):
        assert call("prune", "out", "--out", "pruned").exit_code == 0


def test_a_table_whose_model_is_gone_is_named_and_not_called_damaged(mine, tmp_path):
    out = ["--schemes", "vanilla", *QUICK, "--out", "out"]
    name = mine()
    assert call("compare", "--model", name, *out).exit_code == 0
    module = name.partition(":")[0]
    (tmp_path / f"{module}.py").unlink()
    sys.modules.pop(module)
    said = refused("compare", "--model", "resnet-small", *out)
    assert module in said and "another experiment" in said


def test_the_code_of_lincon_and_of_installed_libraries_is_no_users():
    from lincon.tasks.classification.models import MODELS

    assert code_of(MODELS["resnet-small"]) == {}
    assert list(code_of(MODELS["resnet-small"], torch.nn.Linear)) == [
        "code of torch.nn.modules.linear"
    ]


def test_other_data_under_the_same_name_are_seen(tmp_path):
    arguments = ["compare", "--data", "fashion-mnist", "--schemes", "vanilla", "--epochs", 1]
    arguments += ["--seeds", 1, "--out", tmp_path / "out"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_fashion(tmp_path / name, compress=False)
    images = tmp_path / "b" / FILES[0]
    content = images.read_bytes()
    images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the last pixel of the last image
    assert call(*arguments, "--root", tmp_path / "a").exit_code == 0
    said = refused(*arguments, "--root", tmp_path / "b")
    assert "training items" in said and "test items" not in said
    assert call(*arguments, "--root", tmp_path / "a").exit_code == 0


# Tables.


def test_a_table_is_not_replaced_by_one_that_lacks_its_lines(tmp_path):
    assert call("compare", "--schemes", "vanilla,rpg", *QUICK, "--out", tmp_path).exit_code == 0
    before = contents(tmp_path)
    for other in (
        ["--schemes", "vanilla"],
        ["--schemes", "hash"],
        ["--model", "vit-micro"],
        ["--dof", 0.2],
    ):
        arguments = [
            "compare",
            *(["--schemes", "vanilla,rpg"] if "--schemes" not in other else []),
            *other,
        ]
        said = refused(*arguments, *QUICK, "--out", tmp_path)
        assert "another experiment" in said and "resnet-small-" in said and "--out" in said
        assert contents(tmp_path) == before
    more = call("compare", "--schemes", "vanilla,rpg,hash", *QUICK, "--out", tmp_path)
    assert more.exit_code == 0 and len(results(tmp_path)["runs"]) == 3


def test_a_table_of_another_recipe_is_not_replaced_even_without_its_runs(tmp_path):
    arguments = ["compare", "--schemes", "small", *QUICK, "--out", tmp_path]
    assert call(*arguments).exit_code == 0
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    said = refused(*arguments, "--learning-rate", 0.5)
    assert "learning_rate is 0.1 there and 0.5 here" in said


def test_an_experiment_and_a_training_do_not_share_a_folder(tmp_path):
    train = ["train", "--scheme", "small", "--epochs", 1, "--images", 64]
    compare = ["compare", "--schemes", "small", *QUICK]
    assert call(*train, "--out", tmp_path / "a").exit_code == 0
    assert "holds a training" in refused(*compare, "--out", tmp_path / "a")
    assert call(*compare, "--out", tmp_path / "b").exit_code == 0
    assert "holds an experiment" in refused(*train, "--out", tmp_path / "b")


def test_shifted_accuracies_of_an_earlier_model_are_not_shown(tmp_path):
    arguments = ["generalization", "--schemes", "vanilla", *QUICK, "--out", tmp_path]
    assert call(*arguments).exit_code == 0
    (kept,) = (tmp_path / "runs").glob("*/shifted.json")
    before = json.loads(kept.read_text())
    altered = {name: [0.0] * len(values) for name, values in before["accuracies"].items()}
    kept.write_text(json.dumps({"of": "another model", "accuracies": altered}))
    assert call(*arguments).exit_code == 0
    assert json.loads(kept.read_text()) == before


# Predictions.


def test_joints_of_a_low_score_and_outside_of_the_picture_are_not_drawn_and_named(
    tmp_path, monkeypatch
):
    from PIL import Image

    from lincon.tasks.pose import predict as predicting
    from lincon.tasks.pose.skeleton import JOINTS

    out = tmp_path / "run"
    figures = ["--data", "figures:size=32", "--images", 16, "--batch", 16, "--epochs", 1]
    tiny = ["--model", "hourglass-small:channels=8,stacks=1"]
    assert call("train", "pose", *tiny, *figures, "--out", out).exit_code == 0
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")  # black above and below, inside of the box
    points, scores = torch.full((1, 16, 2), 16.0), torch.ones(1, 16)
    points[0, 9] = torch.tensor([16.0, 2.0])  # outside of the picture, inside of the box
    scores[0, 0] = 0.03
    monkeypatch.setattr(predicting, "seen", lambda *_: (points, scores))
    result = call("predict", "pose", tmp_path / "a.png", "--run", out, "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    line = " ".join(result.stdout.split())
    assert f"{JOINTS[9]} (outside of the picture)" in line and f"{JOINTS[0]} (score 0.03)" in line
    joints = json.loads((tmp_path / "o/a.json").read_text())["joints"]
    assert [name for name, joint in joints.items() if not joint["drawn"]] == [JOINTS[0], JOINTS[9]]
    points[0], scores[0] = torch.tensor([16.0, 2.0]), 1
    call("predict", "pose", tmp_path / "a.png", "--run", out, "--out", tmp_path / "o")
    with Image.open(tmp_path / "o/a.png") as drawn:
        assert drawn.convert("L").getextrema() == (0, 0)
