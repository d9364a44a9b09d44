"""The tasks on several processes: Lightning's launcher and torchrun, DDP and FSDP2."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import lincon
from lincon.tasks.classification.data import Digits
from lincon.tasks.commands.cli import app, main
from lincon.tasks.experiments.training.learner import Learner

from .ranks import under_torchrun

UNAUGMENTED = str(Path(__file__).with_name("unaugmented.py"))
CPU = ("--trainer.accelerator", "cpu")
TWO = (*CPU, "--trainer.devices", "2")
SHARDED = (*CPU, "--trainer.strategy", "fsdp")
ELASTIC = ("-m", "torch.distributed.run")


def start(*words, **settings):
    """The output of a command that was started as a user would; it must end well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def files(folder):
    return sorted(
        str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()
    )


# A ViT of LayerNorms alone, five steps: what a batch is normalised by does not depend on how it is shared.
FIVE_STEPS = ("train", "--model", "vit-micro", "--epochs", "1", "--images", "320")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    start(UNAUGMENTED, *FIVE_STEPS, "--out", out)
    return load_file(out / "model.safetensors")


def check_same(folder, expected, atol):
    assert files(folder) == ["model.safetensors", "training.json"]
    found = load_file(folder / "model.safetensors")
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol)


@pytest.mark.long
def test_two_processes_started_by_lightning_take_the_steps_of_one(alone, tmp_path):
    done = start(
        UNAUGMENTED, *FIVE_STEPS, *TWO, "--trainer.strategy", "ddp", "--out", tmp_path / "two"
    )
    assert done.stdout.count("test accuracy") == 1  # the first process speaks, and writes
    check_same(tmp_path / "two", alone, atol=1e-6)


@pytest.mark.long
def test_two_nodes_under_torchrun_take_the_steps_of_one(alone, tmp_path):
    meeting = (
        "--nnodes",
        2,
        "--nproc-per-node",
        1,
        "--rdzv-backend",
        "c10d",
        "--rdzv-id",
        tmp_path.name,
    )
    command = (
        *ELASTIC,
        *meeting,
        "--rdzv-endpoint",
        f"localhost:{20000 + os.getpid() % 20000}",
        UNAUGMENTED,
    )
    options = (
        *FIVE_STEPS,
        "--trainer.accelerator",
        "cpu",
        "--trainer.strategy",
        "ddp",
        "--out",
        tmp_path / "two",
    )
    with ThreadPoolExecutor() as nodes:
        done = list(nodes.map(lambda _: start(*command, *options), range(2)))
    assert sum(node.stdout.count("test accuracy") for node in done) == 1
    check_same(tmp_path / "two", alone, atol=1e-6)


def test_two_sharded_processes_take_the_steps_of_one(alone, tmp_path):
    said = under_torchrun(2, tmp_path / "ranks", *FIVE_STEPS, *SHARDED, "--out", tmp_path / "two")
    assert [text.count("test accuracy") for text in said] == [1, 0]
    check_same(tmp_path / "two", alone, atol=1e-6)


@pytest.mark.parametrize("task, strategy", [("pose", "fsdp"), ("indoor", "ddp")])
def test_the_other_tasks_train_and_measure_on_two_processes(tmp_path, task, strategy):
    data = {"pose": "figures:size=32", "indoor": "rooms:size=32"}[task]
    options = (
        "--data",
        data,
        "--epochs",
        1,
        "--images",
        64,
        "--batch",
        32,
        *CPU,
        "--trainer.strategy",
        strategy,
    )
    said, _ = under_torchrun(
        2, tmp_path / "ranks", "train", task, *options, "--out", tmp_path / "run"
    )
    again = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "run")]
    )  # one process measures what two did
    assert again.stdout.splitlines()[0].startswith("test ") and again.stdout.splitlines()[0] in said


@pytest.mark.long
def test_a_sweep_on_two_processes_has_every_run_and_one_table(tmp_path):
    """With schemes that change the model between their phases, which FSDP2 trains copies of."""
    schemes, out = "imp-once,rpg-knapsack", tmp_path / "out"
    options = ("--dof", 0.1, "--seeds", 1, "--epochs", 2, "--images", 128, "--out", out)
    said = under_torchrun(
        2, tmp_path / "ranks", "compare", "--schemes", schemes, *options, *SHARDED
    )
    assert [text.count("written to") for text in said] == [1, 0]
    table = json.loads((out / "results.json").read_text())["table"]
    assert [line["scheme"] for line in table] == schemes.split(",")
    for run in (out / "runs").iterdir():
        assert files(run) == ["model.safetensors", "run.json", "training.json"]
        lincon.inspect(run / "model.safetensors")


@pytest.mark.long
def test_a_cut_training_goes_on_to_the_same_weights(tmp_path):
    options, cut = (
        ("train", "--epochs", 3, "--images", 128, *TWO, "--trainer.strategy", "fsdp"),
        tmp_path / "cut",
    )
    under_torchrun(2, tmp_path / "first", *options, "--out", tmp_path / "whole")
    assert "cut" in start(UNAUGMENTED, *options, "--out", cut, CUT_AT_EPOCH="2").stdout
    assert "phase-0.ckpt" in files(cut)
    under_torchrun(2, tmp_path / "second", *options, "--out", cut, "--resume")
    check_same(cut, load_file(tmp_path / "whole" / "model.safetensors"), atol=0)


def test_pruning_trains_on_in_two_processes_and_leaves_one_model(tmp_path):
    CliRunner().invoke(
        app, ["train", "--epochs", "1", "--images", "128", "--out", str(tmp_path / "run")]
    )
    pruned = ("prune", tmp_path / "run", "--epochs", 1, "--out", tmp_path / "pruned")
    said = under_torchrun(2, tmp_path / "ranks", *pruned)
    assert [text.count("test accuracy") for text in said] == [1, 0]
    assert files(tmp_path / "pruned") == ["model.safetensors", "training.json", "tuned.json"]


def test_a_process_that_trained_with_others_leaves_at_once_with_its_code(monkeypatch):
    """In order, one of ten such processes aborts in the interpreter's last moments (pytorch/pytorch, pull 179291)."""
    codes = []
    monkeypatch.setattr("lincon.tasks.commands.cli.app", lambda: sys.exit(2))
    monkeypatch.setattr("lincon.tasks.commands.cli.os._exit", codes.append)
    for initialised, expected in ((False, []), (True, [2])):
        monkeypatch.setattr(
            "torch.distributed.is_initialized", lambda initialised=initialised: initialised
        )
        with pytest.raises(SystemExit, match="2"):
            main()
        assert codes == expected


def test_the_draws_of_a_rank_are_those_of_no_other_seed_and_epoch():
    learner = SimpleNamespace(first_epoch=0)
    seen = set()
    for learner.seed in range(4):
        for learner.current_epoch in range(40):
            for learner.global_rank in range(4):
                Learner.on_train_epoch_start(learner)
                seen.add(torch.initial_seed())
    assert len(seen) == 4 * 40 * 4


def test_a_batch_that_cannot_be_shared_is_refused():
    data = Digits(0, batch=63)
    data.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=2)
    with pytest.raises(
        lincon.LinconError, match="63 items a step cannot be shared by 2 processes: see --batch"
    ):
        data.train_dataloader()


def test_processes_share_every_batch_in_their_order():
    data = Digits(0, batch=64)

    def batches():
        return [list(loader.sampler) for loader in (data.train_dataloader(), data.val_dataloader())]

    whole, shared = batches(), []
    for rank in range(4):
        data.trainer = SimpleNamespace(current_epoch=0, global_rank=rank, world_size=4)
        shared.append(batches())
    assert all(batch for parts in shared for part in parts for batch in part)
    for part, expected in enumerate(whole):
        joined = [
            list(chain(*parts)) for parts in zip(*(rank[part] for rank in shared), strict=True)
        ]
        assert joined == expected
