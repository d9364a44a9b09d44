"""Trainings side by side have the results of trainings one after the other."""

import json
import os

import pytest
from typer.testing import CliRunner

from lincon import LinconError
from lincon.tasks.commands.cli import app
from lincon.tasks.experiments.sweeps.parallel import side_by_side


def compare(out, *options):
    words = (
        "compare",
        "--schemes",
        "vanilla,rpg,hash",
        "--dof",
        "0.1",
        "--seeds",
        1,
        "--epochs",
        2,
        "--images",
        256,
    )
    return CliRunner().invoke(app, [*map(str, words), *map(str, options), "--out", str(out)])


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    for name, options in (("one", ()), ("two", ("--parallel", 2))):
        done = compare(folder / name, *options)
        assert done.exit_code == 0, done.output
    return folder / "one", folder / "two"


@pytest.mark.long
def test_models_are_the_same_bytes_and_runs_the_same_numbers(both):
    one, two = both
    assert len(list(one.glob("runs/*/model.safetensors"))) == 3
    for path in one.glob("runs/*/model.safetensors"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()
    for path in one.glob("runs/*/run.json"):
        runs = [
            json.loads(there.read_text())["run"] for there in (path, two / path.relative_to(one))
        ]
        for run in runs:
            del run["epoch_seconds"]
        assert runs[0] == runs[1]


def test_a_sweep_goes_on_with_what_was_trained_side_by_side(both):
    _, two = both
    before = {path: path.stat().st_mtime_ns for path in two.glob("runs/*/run.json")}
    assert compare(two).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in two.glob("runs/*/run.json")}


def fails_on_two(number):
    if number == 2:
        raise LinconError("two is not trained today")
    return number * number


def test_a_refusal_is_the_callers_own_and_what_was_done_before_is_kept():
    found = []
    with pytest.raises(LinconError, match=r"^two is not trained today$"):
        for item, square in side_by_side(fails_on_two, [0, 1, 2, 3], 1):
            found.append((item, square))
    assert found == [(0, 0), (1, 1)]


def ends_on_two(number):
    if number == 2:
        os._exit(1)
    return number


def test_a_process_that_is_ended_is_said_and_no_process_is_started_for_nothing(monkeypatch):
    with pytest.raises(
        LinconError, match=r"A process of --parallel 1 has ended .*fewer take less memory"
    ):
        list(side_by_side(ends_on_two, [2], 1))
    monkeypatch.setattr("lincon.tasks.experiments.sweeps.parallel._connect", fails_on_two)
    assert list(side_by_side(ends_on_two, [], 2)) == []


def test_a_training_that_is_refused_says_which_it_was(tmp_path):
    done = compare(tmp_path, "--trainer.precision", "64-mixed")
    assert (
        done.exit_code == 2
        and "resnet-small-vanilla-0: Lightning's Trainer refuses its flags" in done.stderr
    )


def test_under_torchrun_there_are_processes_already(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    done = compare(tmp_path, "--parallel", 2)
    assert done.exit_code == 2 and "--parallel 2 and torchrun exclude each other" in done.stderr


def test_each_training_is_one_process(tmp_path):
    done = compare(tmp_path, "--parallel", 2, "--trainer.devices", 2)
    assert (
        done.exit_code == 2
        and "--parallel 2 and --trainer.devices exclude each other" in done.stderr
    )
    done = CliRunner().invoke(app, ["train", "--parallel", "2"])
    assert done.exit_code == 2 and "--parallel" in done.stderr
