"""The command line as a newcomer meets it: lists, aliases, dry runs, one line for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import lincon
from lincon import LinconError
from lincon.tasks.commands.printing import print_table
from lincon.tasks.experiments.sweeps.report import console_table
from lincon.tasks.experiments.task import TASKS, find_task

from .test_cli import call, refused

QUICK = ["--epochs", 1, "--images", 64]


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


# What there is.


def test_python_m_lincon_says_its_version():
    done = python("-m", "lincon", "--version")
    assert (done.returncode, done.stdout) == (0, f"lincon {lincon.__version__}\n")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("what", ["schemes", "models", "data"])
def test_lists_have_a_line_for_each(task, what):
    module = {"models": "models.MODELS"}.get(what)
    known = getattr(find_task(task), what, None)
    if module:
        from importlib import import_module

        known = import_module(f"lincon.tasks.{task}.models").MODELS
    lines = call(what, task).stdout.splitlines()
    for name, line in zip(known, lines, strict=False):
        assert line.split()[0] == name and len(line.split()) > 1, line


def test_a_generator_is_listed_among_the_schemes():
    assert re.search(r"^ring +Recurrent", call("schemes").stdout, re.MULTILINE)


def test_completion_knows_the_commands():
    environment = {
        "_LINCON_COMPLETE": "complete_bash",
        "COMP_WORDS": "lincon comp",
        "COMP_CWORD": "1",
    }
    code = "from lincon.tasks.commands.cli import app; app(prog_name='lincon')"
    assert "compare" in python("-c", code, **environment).stdout


def test_help_says_what_a_model_function_is_given():
    for command in ("train", "compare"):
        text = " ".join(call(command, "--help").stdout.replace("│", " ").split())
        assert "channels, classes and size" in text and "logits" in text and ".npz" in text


# Spellings.


@pytest.mark.parametrize("spelling", ["command", "file"])
def test_american_spellings_and_short_ones_are_the_same_options(tmp_path, spelling):
    if spelling == "file":
        (tmp_path / "run.toml").write_text('optimizer = "adam"\nlr = 0.03\n')
        options = ["--config", tmp_path / "run.toml"]
    else:
        options = ["--optimizer", "adam", "--lr", 0.03]
    assert call("train", *QUICK, *options, "--out", tmp_path / "out").exit_code == 0
    record = json.loads((tmp_path / "out/training.json").read_text())
    assert (record["optimiser"], record["learning_rate"]) == ("adam", 0.03)


def test_a_file_that_gives_an_option_in_two_spellings_is_refused(tmp_path):
    (tmp_path / "run.toml").write_text("learning_rate = 0.1\nlr = 0.2\n")
    assert "twice" in refused("train", "--config", tmp_path / "run.toml")


def test_quiet_prints_nothing_but_still_trains(tmp_path):
    result = call("train", "--quiet", *QUICK, "--out", tmp_path)
    assert result.exit_code == 0 and result.output == ""
    assert (tmp_path / "model.safetensors").exists()


# Dry runs.


def test_a_dry_run_lists_what_would_be_trained_and_writes_nothing(tmp_path):
    compare = [
        "compare",
        "--schemes",
        "vanilla,rpg,small",
        "--dof",
        "0.1,500",
        "--seeds",
        2,
        *QUICK,
    ]
    out = tmp_path / "out"
    result = call(*compare, "--dry-run", "--out", out)
    assert result.exit_code == 0, result.output
    assert not out.exists() and "10 of 10 trainings left" in result.stdout
    assert "0.01 x the model" in result.stdout
    assert call(*compare, "--out", out).exit_code == 0
    for run in json.loads((out / "results.json").read_text())["runs"]:
        assert f"{run['dof']:,}" in result.stdout
        if run["seed"] == 0:  # multipliers of other seeds have a digit more or less
            assert f"{run['file_bytes']:,}" in result.stdout
    again = call(*compare, "--dry-run", "--out", out)
    assert "0 of 10 trainings left, about 0:00:00" in again.stdout
    more = call(*compare[:-4], "--seeds", 3, *QUICK, "--dry-run", "--out", out)
    assert "5 of 15 trainings left" in more.stdout


@pytest.mark.parametrize("task", TASKS)
def test_a_dry_run_of_one_training(task, tmp_path):
    result = call("train", task, *QUICK, "--batch", 8, "--dry-run", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "1 of 1 trainings left" in result.stdout, result.output
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_what_the_experiment_would(tmp_path):
    (tmp_path / "table.md").write_text("of another")
    said = refused("compare", "--schemes", "small", *QUICK, "--dry-run", "--out", tmp_path)
    assert "table.md" in said


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--config", "nosuch.toml"], ["nosuch.toml is missing", "TOML"]),
        (["inspect", "nosuch"], ["nosuch is missing", "lincon.save"]),
        (["inspect", "."], ["model.safetensors is missing"]),
        (["compare", "--out", "file"], ["--out is file", "is a file", "folder"]),
        (["train", "--out", "file/a"], ["--out is file/a", "file is a file"]),
        (["prune", "run", "--out", "file"], ["--out is file", "is a file"]),
        (["predict", "pose", "a.png", "--out", "file"], ["--out is file", "is a file"]),
        (["train", "--model", "nosuch:net"], ["No module named 'nosuch'", "current"]),
        (["train", "--model", "broken:net"], ["ZeroDivisionError", "broken.py, line 3", "1 / 0"]),
        (["train", "--data", "broken:net"], ["ZeroDivisionError", "broken.py, line 3"]),
        (["schemes", "cooking"], ["'cooking'", "pose"]),
    ],
)
def test_a_mistake_is_one_line_without_errno_or_traceback(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.py").write_text("# a comment\n\n1 / 0\n")
    said = refused(*arguments)
    assert all(word in said for word in words) and "Errno" not in said and "Traceback" not in said


BROKEN = """
from torch import nn


def constructor(classes):
    return nn.Linear(classes, [][0])


class Forward(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body, self.head = nn.Linear(64, 64), nn.Linear(64, classes)

    def forward(self, images):
        return self.head(self.body(images.flatten(1)).reshape(7))
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("constructor", ["IndexError", "line 6: return nn.Linear(classes, [][0])"]),
        ("Forward", ["RuntimeError", "line 15: return self.head"]),
    ],
)
def test_an_error_in_ones_own_model_is_the_last_line_of_its_own_traceback(
    name, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    module = f"failing_{name}".lower()
    (tmp_path / f"{module}.py").write_text(BROKEN)
    arguments = ["train", "--model", f"{module}:{name}", *QUICK, "--out", "out"]
    result = call(*arguments)
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert all(word in last for word in (f"{module}.py", *words)), last
    monkeypatch.setenv("LINCON_TRACEBACK", "")
    assert call(*arguments).exit_code == 1
    monkeypatch.setenv("LINCON_TRACEBACK", "1")
    assert isinstance(call(*arguments).exception, IndexError | RuntimeError)


@pytest.mark.parametrize("package", ["lightning", "kornia"])
def test_from_python_a_missing_extra_is_named_with_its_remedy(package):
    code = f"import sys; sys.modules[{package!r}] = None; import lincon.tasks"
    last = python("-c", code).stderr.splitlines()[-1]
    assert f"{package} is not installed: pip install 'lincon-torch[tasks]'" in last


def test_names_are_checked_before_anything_heavy_is_imported():
    """Lightning and what comes with it take seconds; a wrong name, or a file, need not wait for it."""
    heavy = ["lightning", "kornia", "sklearn", "torchmetrics", "matplotlib"]
    for arguments in (["train", "--scheme", "rung"], ["train", "--model", "vgg"], ["inspect", "x"],
                      ["schemes"], ["models"]):  # fmt: skip
        code = (
            f"import sys; sys.argv = ['lincon', *{arguments}]\n"
            "from lincon.cli import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            f"print('heavy:', [name for name in {heavy} if name in sys.modules])"
        )
        assert python("-c", code).stdout.splitlines()[-1] == "heavy: []", arguments


def test_sigterm_ends_a_training_with_143_and_it_can_be_resumed(tmp_path):
    train = ["-m", "lincon", "train", "--epochs", "500", "--out", str(tmp_path)]
    process = subprocess.Popen([sys.executable, *train], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("phase-0.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in said, said
    assert "lincon: terminated; " in said.splitlines()[-1] and "--resume" in said
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "phase-0.ckpt").exists()


# Tables.


@pytest.mark.parametrize("columns", [20, 60, 200])
def test_no_word_of_a_table_is_cut(columns, monkeypatch, capsys):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 20)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    header = "scheme", "total parameters", "accuracy %"
    row = "deep-compression", "1,234,567", "97.87 ± 0.83"
    print_table(console_table(header, [row], "A title"))
    shown = re.sub(r"\x1b\[\d+m", "", capsys.readouterr().out)
    for text in (*header, *row):
        assert all(word in shown for word in text.split()), shown
    assert columns == 20 or max(map(len, shown.splitlines())) <= columns


# Predictions.


def test_predict_classification_prints_the_likeliest_classes(tmp_path):
    rng = np.random.default_rng(0)
    colours = {"blue": (20, 30, 220), "green": (30, 210, 40), "red": (220, 30, 20)}
    for name, colour in colours.items():
        for index in range(12):
            path = tmp_path / f"photos/{name}/{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(-20, 20, size=(12, 16, 3))
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    out = tmp_path / "out"
    folder = ["--data", "folder:size=8", "--root", tmp_path / "photos", "--batch", 6]
    assert (
        call("train", "--scheme", "vanilla", "--epochs", 12, *folder, "--out", out).exit_code == 0
    )
    pictures = [tmp_path / f"photos/{name}/0.png" for name in colours]
    result = call("predict", "classification", *pictures, "--run", out)
    assert result.exit_code == 0, result.output
    for line, name, path in zip(result.stdout.splitlines(), colours, pictures, strict=True):
        assert line.startswith(f"{path}: {name} ")
        shares = [float(share) for share in re.findall(r"([\d.]+)%", line.removeprefix(str(path)))]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.2)
    one = call("predict", "classification", pictures[0], "--run", out, "--top", 1).stdout
    assert one.count("%") == 1


def test_predicted_probabilities_are_those_of_the_model_on_the_test_set(tmp_path):
    from lincon.tasks.classification.data import Digits
    from lincon.tasks.classification.predict import predict
    from lincon.tasks.experiments.training.record import reload

    call("train", "--epochs", 2, "--out", tmp_path / "out")
    data = Digits()
    pixels = data.test_set.tensors[0][0, 0]
    Image.fromarray((pixels * 255).round().byte().numpy()).save(tmp_path / "a.png")
    model, *_ = reload(tmp_path / "out")
    right = model.eval()(data.prepare((pixels * 255).round()[None, None] / 255)).softmax(-1)[0]
    (found,) = predict([tmp_path / "a.png"], tmp_path / "out", top=20)
    assert len(found) == 10
    assert [share for _, share in found] == pytest.approx(
        sorted(right.tolist(), reverse=True), abs=1e-5
    )
    assert found[0][0] == str(int(right.argmax()))


def test_a_model_of_numbers_in_an_unknown_unit_predicts_no_picture(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 8, 8))
    np.savez(tmp_path / "my.npz", x=x, y=np.arange(40) % 4)
    call("train", "--data", tmp_path / "my.npz", *QUICK[:2], "--out", tmp_path / "out")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    from lincon.tasks.classification.predict import predict

    with pytest.raises(LinconError, match="nothing says how a picture becomes one"):
        predict([tmp_path / "a.png"], tmp_path / "out")
