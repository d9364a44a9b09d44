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
from lincon.cli import app
from lincon.tasks.classification.data import Digits

UNAUGMENTED = str(Path(__file__).with_name("unaugmented.py"))
TWO = ("--trainer.accelerator", "cpu", "--trainer.devices", "2")
ELASTIC = ("-m", "torch.distributed.run")


def start(*words, **settings):
    """The output of a command that was started as a user would; it must end well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# A ViT of LayerNorms alone, five steps: what a batch is normalised by does not depend on how it is shared.
FIVE_STEPS = ("train", "--model", "vit-micro", "--epochs", "1", "--images", "320")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    start(UNAUGMENTED, *FIVE_STEPS, "--out", out)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_take_the_steps_of_one(alone, tmp_path, strategy):
    done = start(UNAUGMENTED, *FIVE_STEPS, *TWO, "--trainer.strategy", strategy, "--out", tmp_path / "two")
    assert done.stdout.count("test accuracy") == 1  # the first process speaks, and writes
    assert files(tmp_path / "two") == ["model.safetensors", "training.json"]
    found = load_file(tmp_path / "two" / "model.safetensors")
    assert list(found) == list(alone)
    for name, tensor in alone.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


def test_two_nodes_under_torchrun_take_the_steps_of_one(alone, tmp_path):
    meeting = ("--nnodes", 2, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--rdzv-id", tmp_path.name)
    command = (*ELASTIC, *meeting, "--rdzv-endpoint", f"localhost:{20000 + os.getpid() % 20000}", UNAUGMENTED)
    options = (*FIVE_STEPS, "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--out", tmp_path / "two")
    with ThreadPoolExecutor() as nodes:
        done = list(nodes.map(lambda _: start(*command, *options), range(2)))
    assert sum(node.stdout.count("test accuracy") for node in done) == 1
    found = load_file(tmp_path / "two" / "model.safetensors")
    for name, tensor in alone.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task, strategy", [("pose", "fsdp"), ("indoor", "ddp")])
def test_the_other_tasks_train_and_measure_on_two_processes(tmp_path, task, strategy):
    data = {"pose": "figures:size=32", "indoor": "rooms:size=32"}[task]
    options = ("--data", data, "--epochs", "1", "--images", "64", "--batch", "32", *TWO, "--trainer.strategy", strategy)
    done = start("-m", "lincon.cli", "train", task, *options, "--out", tmp_path)
    assert "test " in done.stdout
    if strategy == "fsdp":
        again = CliRunner().invoke(app, ["evaluate", str(tmp_path)])  # one process measures what two did
        assert again.stdout.splitlines()[0] in done.stdout


def test_a_sweep_on_two_processes_has_every_run_and_one_table(tmp_path):
    """With schemes that change the model between their phases, which FSDP2 trains copies of."""
    strategy, schemes = "fsdp", "imp-once,rpg-knapsack"
    options = ("--dof", "0.1", "--seeds", "1", "--epochs", "2", "--images", "128", "--out", tmp_path, *TWO)
    done = start("-m", "lincon.cli", "compare", "--schemes", schemes, *options, "--trainer.strategy", strategy)
    assert done.stdout.count("written to") == 1
    table = json.loads((tmp_path / "results.json").read_text())["table"]
    assert [line["scheme"] for line in table] == schemes.split(",")
    for run in (tmp_path / "runs").iterdir():
        assert files(run) == ["model.safetensors", "run.json", "training.json"]
        lincon.inspect(run / "model.safetensors")


def test_a_cut_training_goes_on_to_the_same_weights(tmp_path):
    options = ("train", "--epochs", "3", "--images", "128", *TWO, "--trainer.strategy", "fsdp")
    start(UNAUGMENTED, *options, "--out", tmp_path / "whole")
    cut = start(UNAUGMENTED, *options, "--out", tmp_path / "cut", CUT_AT_EPOCH="2")
    assert "cut" in cut.stdout and "phase-0.ckpt" in files(tmp_path / "cut")
    start(UNAUGMENTED, *options, "--out", tmp_path / "cut", "--resume")
    assert files(tmp_path / "cut") == ["model.safetensors", "training.json"]
    whole, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    for name, tensor in whole.items():
        assert torch.equal(found[name], tensor), name


def test_pruning_trains_on_in_two_processes_and_leaves_one_model(tmp_path):
    CliRunner().invoke(app, ["train", "--epochs", "1", "--images", "128", "--out", str(tmp_path / "run")])
    prune = (*ELASTIC, "--standalone", "--nproc-per-node", 2, "-m", "lincon.cli", "prune", tmp_path / "run")
    done = start(*prune, "--epochs", 1, "--out", tmp_path / "pruned")
    assert done.stdout.count("test accuracy") == 1
    assert files(tmp_path / "pruned") == ["model.safetensors", "training.json", "tuned.json"]


def test_a_batch_that_cannot_be_shared_is_refused():
    data = Digits(0, batch=63)
    data.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=2)
    with pytest.raises(lincon.LinconError, match="63 items a step cannot be shared by 2 processes: see --batch"):
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
        joined = [list(chain(*parts)) for parts in zip(*(rank[part] for rank in shared), strict=True)]
        assert joined == expected
