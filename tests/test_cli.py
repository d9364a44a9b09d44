"""The command line: what it prints and writes, and that a mistake is one line and exit code 2."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import lincon
from lincon.tasks.commands.cli import app


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line that a refused command says."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert (
        result.stdout == ""
        and result.stderr.startswith("lincon: ")
        and result.stderr.count("\n") == 1
    )
    return result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return call(
        "train", "--scheme", "rpg", "--epochs", 1, "--dof", "500", "--out", out
    ), out / "model.safetensors"


def test_train_prints_a_summary_and_saves_the_model(trained):
    result, file = trained
    assert result.exit_code == 0, result.output
    assert "test accuracy" in result.stdout and "ring" in result.stdout
    assert file.stat().st_size < 4 * 500 + 4 * 1000 + 65536


def test_a_trained_model_can_be_loaded(trained):
    from lincon.tasks.classification.models import MODELS

    model = MODELS["resnet-small"](1, 10, 8)
    lincon.load(model, trained[1])
    assert sum(constraint.dof for constraint in lincon.constraints(model)) == 500


def test_inspect_says_what_a_file_holds(trained):
    result = call("inspect", trained[1])
    assert result.exit_code == 0, result.output
    assert "ring" in result.stdout and "500" in result.stdout


def test_compare_prints_one_table(tmp_path):
    result = call(
        "compare", "--schemes", "vanilla,rpg,rpg", "--seeds", 1, "--epochs", 1, "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    assert (
        result.stdout.count("scheme") == 1 and "vanilla" in result.stdout and "rpg" in result.stdout
    )
    assert (tmp_path / "table.md").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--scheme", "rung"], ["'rung'", "rpg", "small"]),
        (["compare", "--schemes", "rpg,rung"], ["'rung'", "rpg", "small"]),
        (["compare", "--model", "vgg"], ["'vgg'", "resnet-small"]),
        (["train", "--data", "cats"], ["'cats'", "digits"]),
        (["train", "--dof", "0"], ["dof"]),
        (["compare", "--dof", "0.0"], ["dof"]),
        (["train", "--dof", "1.5"], ["dof", "1.5"]),
        (["train", "--dof", "nan"], ["dof"]),
        (["train", "--dof", "many"], ["dof", "'many'", "4096", "0.1"]),
        (["compare", "--schemes", "rpg,sparse", "--dof", "20000"], ["20000", "11536"]),
        (["train", "--epochs", "0"], ["epochs", "1"]),
        (["train", "--epochs", "two"], ["--epochs", "integer"]),
        (["train", "--threads", "0"], ["--threads"]),
        (["compare", "--seeds", "0"], ["--seeds"]),
        (["train", "--speed", "9"], ["--speed"]),
        (["train", "--resume"], ["checkpoint"]),
        (["train", "--preset", "slow"], ["'slow'", "quick", "cifar"]),
        (["train", "--log", "paper"], ["'paper'", "csv", "tensorboard"]),
        (["train", "--optimiser", "lion"], ["'lion'", "sgd", "adam"]),
        (["train", "--images", "0"], ["images", "1"]),
        (["train", "--images", "1000000"], ["1000000", "1297"]),
        (["train", "--trainer.precison", "32"], ["'precison'", "precision"]),
        (["train", "--trainer.max_epochs", "3"], ["max_epochs", "--epochs"]),
        (["train", "--model", "vit-micro:pitch=2"], ["pitch", "patch"]),
        (["train", "--model", "nowhere.models:net"], ["nowhere"]),
        (["train", "--data", "cifar10"], ["--root"]),
        (["scaling", "--dof", "0.1,0.2"], ["--dof", "4"]),
        (["convergence", "--schemes", "rpg"], ["vanilla"]),
        (["train", "--trainer.deterministic", "--epochs", "1"], ["deterministic", "no value"]),
        (["train", "--trainer", "precision"], ["precision", "no value"]),
        (["train", "--seed", "-1"], ["seed"]),
        (["train", "--learning-rate", "inf"], ["learning rate"]),
        (["compare", "--dof", ","], ["at least one"]),
        (["scaling", "--dof", "0.1,1154,0.2,0.5", "--model", "resnet-small"], ["--dof", "3"]),
        (["scaling", "--model", "resnet-small", "--predict", "3"], ["--predict", "3"]),
        (["generalization", "--objectnet", "nowhere"], ["ObjectNet", "digits"]),
        (["reproduce", "table-9"], ["'table-9'", "baselines"]),
        (["reproduce", "baselines", "--model", "resnet-small"], ["takes 2", "resnet-medium"]),
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
    assert (
        call(
            "compare", "--schemes", "small", "--seeds", 1, "--epochs", 1, "--out", tmp_path
        ).exit_code
        == 0
    )
    said = refused("compare", "--schemes", "small", "--seeds", 1, "--epochs", 2, "--out", tmp_path)
    assert str(tmp_path) in said and "epochs is 1 there and 2 here" in said


@pytest.mark.parametrize("missing", ["typer", "lightning"])
def test_without_the_extra_the_remedy_is_one_line(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import lincon.cli; lincon.cli.main()"
    result = subprocess.run([sys.executable, "-c", code, "train"], capture_output=True, text=True)
    assert result.returncode != 0 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "pip install 'lincon-torch[tasks]'" in result.stderr


def test_a_config_file_gives_defaults_that_options_override(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('epochs = 1\ndof = "300"\nbatch = 32\n[trainer]\nlimit_train_batches = 2\n')
    out = tmp_path / "out"
    result = call("train", "--config", file, "--dof", "400", "--out", out)
    assert result.exit_code == 0, result.output
    assert sum(c.dof for c in _loaded(out).values()) == 400


def _loaded(out):
    from lincon.tasks.classification.models import MODELS

    model = MODELS["resnet-small"](1, 10, 8)
    lincon.load(model, out / "model.safetensors")
    return dict(enumerate(lincon.constraints(model)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("speed = 9", "speed"),
        ("epochs = ", "TOML"),
        ("[trainer]\nx = 1", "x"),
        ("trainer = 3", "table"),
        ("epochs = true", "True"),
        ("learning-rate = 1\nlearning_rate = 2", "twice"),
        ('config = "other.toml"', "config"),
    ],
)
def test_a_bad_config_file_is_one_line(tmp_path, text, expected):
    file = tmp_path / "run.toml"
    file.write_text(text)
    assert expected in refused("train", "--config", file, "--out", tmp_path / "out")


def test_flags_of_the_trainer_are_taken_in_both_forms(tmp_path):
    for form in (["--trainer.limit_train_batches", "1"], ["--trainer.limit_train_batches=1"]):
        result = call("train", "--epochs", 1, *form, "--out", tmp_path / str(len(form)))
        assert result.exit_code == 0, result.output


def test_a_model_of_ones_own_is_compared_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef net(channels, classes, width=1.0):\n"
        "    n = max(1, round(8 * width))\n"
        "    return nn.Sequential(nn.Conv2d(channels, n, 3), nn.ReLU(), nn.Conv2d(n, n, 3), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(16 * n, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = call(
        "compare", "--model", "mine:net", "--schemes", "vanilla,rpg,small", "--seeds", 1, "--epochs", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "small" in result.stdout


@pytest.mark.long
def test_every_experiment_runs_from_the_command_line(tmp_path):
    quick = ["--epochs", 1, "--seeds", 1, "--images", 300]
    for command in (
        ["scaling", "--model", "resnet-small", "--dof", "0.05,0.1,0.2,0.5", "--predict", 2000],
        ["convergence", "--dof", "0.1"],
        ["generalization", "--dof", "0.1"],
        ["reproduce", "dof-accuracy", "--model", "resnet-small,vit-micro"],
    ):
        result = call(*command, *quick, "--out", tmp_path / command[0])
        assert result.exit_code == 0, result.output
        assert {"table.md", "results.json", "picture.png"} <= {
            p.name for p in (tmp_path / command[0]).iterdir()
        }


def test_flags_of_the_file_and_of_the_command_line_are_joined(tmp_path):
    import json

    file = tmp_path / "run.toml"
    file.write_text(
        "dof = [0.1, 0.2]\n[trainer]\ngradient_clip_val = 1.0\naccumulate_grad_batches = 2\n"
    )
    result = call(
        "compare", "--config", file, "--trainer.gradient_clip_val", 2, "--schemes", "rpg", "--epochs", 1, "--seeds", 1,
        "--images", 200, "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["recipe"]["trainer"] == {"gradient_clip_val": 2, "accumulate_grad_batches": 2}
    assert [run["asked"] for run in results["runs"]] == [0.1, 0.2]


SOURCES = {
    "counting": "[x.item() for x in torch.linspace(0, 1, 3)]; return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), "
    "nn.Linear(9, 9), nn.Linear(9, classes))",
    "lazy": "return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.LazyLinear(9), nn.Linear(9, classes))",
    "narrow": "return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 9), nn.Linear(9, 3))",
}


@pytest.mark.parametrize(
    ("kind", "said"), [("counting", None), ("lazy", "lazy"), ("narrow", "logits")]
)
def test_odd_models_of_ones_own(tmp_path, monkeypatch, kind, said):
    (tmp_path / f"odd_{kind}.py").write_text(
        f"import torch\nfrom torch import nn\n\n\ndef net(classes):\n    {SOURCES[kind]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["train", "--model", f"odd_{kind}:net", "--epochs", 1, "--out", tmp_path / "out"]
    result = call(*arguments)
    assert result.exit_code == (2 if said else 0)
    if said:
        last = result.stderr.splitlines()[-1]
        assert last.startswith("lincon: ") and said in last


def test_a_trained_model_is_not_replaced_and_has_nothing_to_resume(trained):
    _, path = trained
    before = path.read_bytes()
    assert "holds a trained model: give another --out" in refused(
        "train", "--epochs", 1, "--out", path.parent
    )
    assert "has ended: there is nothing to resume" in refused(
        "train", "--epochs", 1, "--resume", "--out", path.parent
    )
    assert path.read_bytes() == before
    assert call("inspect", path.parent).stdout == call("inspect", path).stdout


def test_a_training_that_diverged_says_so_and_is_not_exported(tmp_path):
    done = call(
        "train", "--learning-rate", 1e9, "--images", 200, "--epochs", 3, "--out", tmp_path / "run"
    )
    assert done.exit_code == 2 and "the training diverged: 'free' holds NaN" in done.stderr
    said = refused("export", tmp_path / "run", tmp_path / "model.pt2")
    assert "outputs of the model are NaN" in said and not (tmp_path / "model.pt2").exists()
