"""The command line: what it prints and writes, and that a mistake is one line and exit code 2."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import lincon
from lincon.cli import app


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line that a refused command says."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.startswith("lincon: ") and result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return call("train", "--scheme", "ring", "--epochs", 1, "--dof", "500", "--out", out), out / "model.safetensors"


def test_train_prints_a_summary_and_saves_the_model(trained):
    result, file = trained
    assert result.exit_code == 0, result.output
    assert "test accuracy" in result.stdout and "ring" in result.stdout
    assert file.stat().st_size < 4 * 500 + 4 * 1000 + 65536


def test_a_trained_model_can_be_loaded(trained):
    from lincon.tasks.classification.models import MODELS

    model = MODELS["resnet-small"](1, 10)
    lincon.load(model, trained[1])
    assert sum(constraint.dof for constraint in lincon.constraints(model)) == 500


def test_inspect_says_what_a_file_holds(trained):
    result = call("inspect", trained[1])
    assert result.exit_code == 0, result.output
    assert "ring" in result.stdout and "500" in result.stdout


def test_compare_prints_one_table(tmp_path):
    result = call("compare", "--schemes", "vanilla,ring,ring", "--seeds", 1, "--epochs", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("scheme") == 1 and "vanilla" in result.stdout and "ring" in result.stdout
    assert (tmp_path / "table.md").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--scheme", "rung"], ["'rung'", "ring", "small"]),
        (["compare", "--schemes", "ring,rung"], ["'rung'", "ring", "small"]),
        (["compare", "--model", "vgg"], ["'vgg'", "resnet-small"]),
        (["train", "--data", "cats"], ["'cats'", "digits"]),
        (["train", "--dof", "0"], ["dof"]),
        (["compare", "--dof", "0.0"], ["dof"]),
        (["train", "--dof", "1.5"], ["dof", "1.5"]),
        (["train", "--dof", "nan"], ["dof"]),
        (["train", "--dof", "many"], ["dof", "'many'", "4096", "0.1"]),
        (["compare", "--schemes", "ring,sparse", "--dof", "20000"], ["20000", "11536"]),
        (["train", "--epochs", "0"], ["epochs", "1"]),
        (["train", "--epochs", "two"], ["--epochs", "integer"]),
        (["train", "--threads", "0"], ["--threads"]),
        (["compare", "--seeds", "0"], ["--seeds"]),
        (["train", "--speed", "9"], ["--speed"]),
    ],
)
def test_bad_input_is_one_line(arguments, expected, tmp_path):
    said = refused(*arguments, "--out", tmp_path / "out")
    assert all(word in said for word in expected)
    assert not list(tmp_path.rglob("*.*"))


def test_a_missing_file_is_one_line(tmp_path):
    assert "nothing.safetensors" in refused("inspect", tmp_path / "nothing.safetensors")


def test_a_damaged_file_is_one_line(trained, tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(trained[1].read_bytes()[:-7])
    assert "damaged.safetensors" in refused("inspect", damaged)


def test_other_options_in_the_same_folder_are_one_line(tmp_path):
    assert call("compare", "--schemes", "small", "--seeds", 1, "--epochs", 1, "--out", tmp_path).exit_code == 0
    said = refused("compare", "--schemes", "small", "--seeds", 1, "--epochs", 2, "--out", tmp_path)
    assert str(tmp_path) in said and "epochs is 1 there and 2 here" in said


@pytest.mark.parametrize("missing", ["typer", "lightning"])
def test_without_the_extra_the_remedy_is_one_line(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import lincon.cli; lincon.cli.main()"
    result = subprocess.run([sys.executable, "-c", code, "train"], capture_output=True, text=True)
    assert result.returncode != 0 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "pip install 'lincon-torch[tasks]'" in result.stderr
