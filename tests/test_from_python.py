"""Experiments called from Python: objects for names, nothing on the disk, results that show themselves."""

import sys
from functools import partial
from statistics import mean, stdev
from types import ModuleType
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import lincon
from lincon import LinconError
from lincon.experiments import compare, convergence, generalization, scaling
from lincon.tasks.commands.cli import app


def net(channels, classes, *, width=1.0, hidden=8):
    first = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, hidden), nn.ReLU())
    return nn.Sequential(first, nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))


IMAGES = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = (IMAGES.mean((1, 2, 3)) > 0.5).long()
PARTS = IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:]
quickly = partial(compare, net, schemes=["vanilla", "ring"], dof=0.5, seeds=1, epochs=1, quiet=True)


class Module(lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(*PARTS[:2]), shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*PARTS[2:]))


FORMS = {
    "four arrays": lambda folder: tuple(part.numpy() for part in PARTS),
    "two pairs": lambda folder: (PARTS[:2], PARTS[2:]),
    "a dictionary": lambda folder: dict(
        zip(("x_train", "y_train", "x_test", "y_test"), PARTS, strict=True)
    ),
    "two data sets": lambda folder: (TensorDataset(*PARTS[:2]), TensorDataset(*PARTS[2:])),
    "a LightningDataModule": lambda folder: Module(),
    "a function": lambda folder: lambda: PARTS,
    "a file": lambda folder: saved(folder),
}


def saved(folder):
    names = "x_train", "y_train", "x_test", "y_test"
    np.savez(folder / "my.npz", **dict(zip(names, map(np.asarray, PARTS), strict=True)))
    return folder / "my.npz"


@pytest.fixture(scope="module")
def result():
    return quickly(PARTS, seeds=2)


def test_rows_are_the_mean_and_the_deviation_over_the_runs(result):
    row = result.rows[1]
    scores = [100 * run.test["accuracy"][-1] for run in result.runs if run.scheme == "ring"]
    assert (row["scheme"], row["dof"], len(scores)) == ("ring", 32, 2)
    assert (row["accuracy"], row["accuracy_std"]) == (mean(scores), stdev(scores))


def test_a_result_shows_itself(result):
    assert "ring" in repr(result) and "\\x89PNG" not in repr(result)
    html = result._repr_html_()
    assert html.startswith("<table>") and html.count("<tr>") == 3
    assert result.plot().axes[0].get_xlabel() == "epoch"
    assert result.plot()._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_training(result, form, tmp_path):
    runs = quickly(FORMS[form](tmp_path)).runs
    assert [run.test for run in runs] == [run.test for run in result.runs if run.seed == 0]


def test_nothing_is_left_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    quickly(PARTS)
    assert list(tmp_path.iterdir()) == []


class Pairs(lincon.generators.OneNonzero):
    """Two neighbours read the same number."""

    name = "pairs-of-a-test"

    def __init__(self, rows, dof, seed=0, *, run=2):
        super().__init__(rows, dof, seed)
        self.run = run

    def options(self):
        return {"run": self.run}

    def entries(self, rows):
        return rows // self.run % self.dof, None


@pytest.mark.usefixtures("own_registry")
def test_a_generator_class_is_a_scheme():
    row = quickly(PARTS, schemes=["ring", Pairs]).rows[1]
    assert row["scheme"] == f"{__name__}:Pairs" and row["dof"] == 32

    class Typed(Pairs):
        name = "typed-in-a-test"

    assert quickly(PARTS, schemes=Typed).rows[0]["scheme"] == "given:Typed"


def test_trainings_compute_with_one_thread_unless_more_are_asked_for():
    torch.set_num_threads(2)
    seen = []

    def watched(channels, classes):
        seen.append(torch.get_num_threads())
        return net(channels, classes)

    compare(watched, PARTS, schemes="vanilla", seeds=1, epochs=1, quiet=True)
    assert set(seen) == {1} and torch.get_num_threads() == 2
    seen.clear()
    compare(watched, PARTS, schemes="vanilla", seeds=1, epochs=1, quiet=True, threads=2)
    assert set(seen) == {2}


WRONG = {
    "a generator, not its class": (
        lambda: quickly(PARTS, schemes=cast(Any, Pairs(8, 4))),
        "is no scheme: give a name",
    ),
    "a model, not a function": (lambda: compare(net(1, 2), PARTS), "a function that makes a new"),
    "an unknown setting": (lambda: quickly(PARTS, lr=1), "Unknown setting 'lr'"),
    "an unknown scheme": (lambda: quickly(PARTS, schemes=["nosuch"]), "Unknown scheme 'nosuch'"),
    "one data set": (lambda: quickly(TensorDataset(*PARTS[:2])), "TensorDataset"),
    "a function for pose": (lambda: quickly(task="pose"), "by name"),
    "too few DoF for a law": (lambda: scaling(net, PARTS, dof=[0.5]), "at least 4"),
    "no vanilla": (lambda: convergence(net, PARTS, schemes=["ring"]), "add it"),
    "images of any range": (lambda: generalization(net, (9 * IMAGES, LABELS)), "black and white"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_refused_before_a_training(mistake):
    call, said = WRONG[mistake]
    with pytest.raises(LinconError, match=said):
        call()


def test_a_dry_run_lists_the_trainings_and_writes_nothing(tmp_path):
    planned = quickly(PARTS, seeds=3, dry_run=True, out=tmp_path / "out")
    assert [(row["scheme"], row["left"]) for row in planned.rows] == [("vanilla", 3), ("ring", 3)]
    assert not (tmp_path / "out").exists()
    with pytest.raises(LinconError, match="nothing was trained"):
        planned.plot()


def test_an_edited_function_of_a_notebook_is_another_training(tmp_path):
    def typed(hidden):
        module = ModuleType("typed")  # as the `__main__` of a notebook, which no file holds
        source = "def build(channels, classes):\n    return make(channels, classes)\n"
        helper = (
            f"def make(channels, classes):\n    return net(channels, classes, hidden={hidden})\n"
        )
        module.__dict__.update(net=net)
        exec(source + helper, module.__dict__)
        return module.build

    out = tmp_path / "out"
    first = quickly.func(typed(8), PARTS, **quickly.keywords, out=out)
    again = quickly.func(typed(8), PARTS, **quickly.keywords, out=out)
    assert again.texts == first.texts
    with pytest.raises(LinconError, match=r"another training.*code of a notebook"):
        quickly.func(typed(7 + 2), PARTS, **quickly.keywords, out=out)
    with pytest.raises(LinconError, match="that a program gave"):
        lincon.tasks.experiments.training.record.reload(out / "runs" / "given-build-vanilla-0")


def test_the_command_line_goes_on_with_what_python_has_trained(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    data = str(saved(tmp_path))
    done = quickly(data, out=out)
    model = f"{__name__}:net"
    assert sys.modules[__name__].net is net
    words = ["--model", model, "--data", data, "--schemes", "vanilla,ring", "--dof", "0.5"]
    words += ["--seeds", "1", "--epochs", "1", "--quiet", "--out", str(out)]
    before = (out / "runs").stat().st_mtime_ns, (out / "results.json").read_text()
    called = CliRunner().invoke(app, ["compare", *words])
    assert called.exit_code == 0, called.output
    assert before == ((out / "runs").stat().st_mtime_ns, (out / "results.json").read_text())
    assert f"| {done.texts[1][0]} | {done.texts[1][1]} |" in (out / "table.md").read_text()
