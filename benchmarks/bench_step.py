"""A training step of two ResNets: a ring at half the DoF against vanilla.

Batches are 64 x 3 x 32 x 32. Times are taken in turn in one process, twice over: with the
C library's allocator as it comes, which gives memory back to the system in the middle of a training
and fetches it again, page by page; and with the allocator told to keep it, as the training commands
do (`lincon.recycling.keep_pages`). Peak memory is the largest sum of all live tensors during a step
(activations, weights, gradients, optimiser states), as torch's profiler counts them. Each mode has
a process of its own for it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import lincon
from benchmarks.step import BLOCKS, MODES, OPTIMIZERS, build, stepper
from lincon.tasks.experiments.schemes.body import body_weights

MARK = 12_345_678
"""Bytes of an allocation that stands out in a trace: the measured step begins at it."""


@pytest.mark.parametrize("pages", ["given back", "kept"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("depth", BLOCKS)
def test_seconds(benchmark: Any, depth: int, optimizer: str, pages: str) -> None:
    options = ["--depth", str(depth), "--optimizer", optimizer, "--steps", "10", "--mode", *MODES]
    if pages == "kept":
        options.append("--keep-pages")
    seconds = json.loads(_python("-m", "benchmarks.step", *options))["seconds"]
    benchmark.group = f"training step, constrained / vanilla in turn, pages {pages}"
    benchmark.name = f"ResNet-{depth}, {optimizer}: vanilla"
    for mode in MODES:
        benchmark.extra_info[f"{mode} / vanilla"] = round(seconds[mode] / seconds["vanilla"], 3)
    benchmark.pedantic(stepper(build(depth, "vanilla", 0.5), optimizer, 64), rounds=1)


@pytest.mark.parametrize("depth", [34])
def test_peak_memory(benchmark: Any, depth: int) -> None:
    peaks = {}
    for mode in MODES:
        code = f"from benchmarks.bench_step import peak; print(peak({depth}, {mode!r}))"
        peaks[mode] = int(_python("-c", code).split()[-1])
    benchmark.group = "peak memory of a step with Adam"
    benchmark.name = f"ResNet-{depth}, Adam: time of the vanilla step"
    for mode in MODES:
        benchmark.extra_info[f"{mode} bytes"] = peaks[mode]
    for mode in MODES:
        benchmark.extra_info[f"{mode} / vanilla"] = round(peaks[mode] / peaks["vanilla"], 3)
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


def peak(depth: int, mode: str, batch: int = 64) -> int:
    """Bytes of live tensors at the worst moment of the second step."""
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(2)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step = stepper(build(depth, mode, 0.5), "adam", batch)
        step()
        mark = torch.ones(MARK, dtype=torch.uint8)
        del mark
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())["traceEvents"]
    events = [event for event in trace if event.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    changes = [event["args"]["Bytes"] for event in events]
    marked = next(i for i, change in enumerate(changes) if MARK <= change < MARK + 322)
    totals: list[int] = [event["args"]["Total Allocated"] for event in events[marked + 2 :]]
    return max(totals)


def _python(*arguments: str) -> str:
    """The output of a Python process of its own."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout
