"""A training step of ResNet-18 and ResNet-34 on batches of 64 x 3 x 32 x 32, a ring at half the DoF against vanilla.

Times are taken in turn in one process, twice over: with the C library's allocator as it comes, which gives memory back
to the system in the middle of a training and fetches it again, page by page, and told to keep it, as the training
commands do (`lincon.recycling.keep_pages`). Peak memory is the largest sum of all live tensors during a step
(activations, weights, gradients, optimizer), as torch's profiler counts them, each mode in a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import lincon
from benchmarks.step import build, stepper
from lincon.tasks.experiments.schemes.body import body_weights

MODES = ["vanilla", "model", "layer"]


@pytest.mark.parametrize("pages", ["given back", "kept"])
@pytest.mark.parametrize("optimizer", ["sgd", "sgd-fused", "adam", "adam-fused"])
@pytest.mark.parametrize("depth", [18, 34])
def test_seconds(benchmark: Any, depth: int, optimizer: str, pages: str) -> None:
    command = [
        sys.executable,
        "benchmarks/step.py",
        "--depth",
        str(depth),
        "--optimizer",
        optimizer,
        "--steps",
        "10",
    ]
    command += ["--mode", *MODES, *(["--keep-pages"] if pages == "kept" else [])]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": "."}
    )
    seconds = json.loads(done.stdout)["seconds"]
    benchmark.group = f"training step, constrained / vanilla in turn, pages {pages}"
    benchmark.name = f"ResNet-{depth}, {optimizer}: vanilla"
    benchmark.extra_info.update(
        {f"{mode} / vanilla": round(seconds[mode] / seconds["vanilla"], 3) for mode in MODES}
    )
    benchmark.pedantic(stepper(build(depth, "vanilla", 0.5), optimizer, 64), rounds=1)


@pytest.mark.parametrize("depth", [34])
def test_peak_memory(benchmark: Any, depth: int) -> None:
    peaks = {}
    for mode in MODES:
        code = f"from benchmarks.bench_step import peak; print(peak({depth}, {mode!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        peaks[mode] = int(done.stdout.split()[-1])
    benchmark.group = "peak memory of a step with Adam"
    benchmark.name = f"ResNet-{depth}, Adam: time of the vanilla step"
    benchmark.extra_info.update({f"{mode} bytes": value for mode, value in peaks.items()})
    benchmark.extra_info.update(
        {f"{mode} / vanilla": round(value / peaks["vanilla"], 3) for mode, value in peaks.items()}
    )
    benchmark.pedantic(stepper(build(depth, "vanilla", 0.5), "adam", 64), rounds=1)


def test_files_and_attaching(benchmark: Any, tmp_path: Path) -> None:
    benchmark.group = "attaching a ring to ResNet-34"
    benchmark.name = "constrain, dof 50 %"
    model = build(34, "vanilla", 0.5)
    start = time.perf_counter()
    lincon.constrain(model, "ring", dof=0.5, where=body_weights(model))
    benchmark.extra_info["seconds"] = round(time.perf_counter() - start, 3)
    benchmark.extra_info["file bytes"] = lincon.save(model, tmp_path / "m")
    benchmark.extra_info["dense bytes"] = lincon.summary(model).dense
    benchmark.pedantic(lambda: build(34, "model", 0.5), rounds=3)


def peak(depth: int, mode: str) -> int:
    """Bytes of live tensors at the worst moment of the second step."""
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(2)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step = stepper(build(depth, mode, 0.5), "adam", 64)
        step()
        mark = torch.ones(12_345_678, dtype=torch.uint8)
        del mark
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = [
            e for e in json.loads(path.read_text())["traceEvents"] if e.get("name") == "[memory]"
        ]
    events.sort(key=lambda event: event["ts"])
    first = next(i for i, e in enumerate(events) if 12_345_678 <= e["args"]["Bytes"] < 12_346_000)
    return max(e["args"]["Total Allocated"] for e in events[first + 2 :])
