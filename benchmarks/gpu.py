"""The same questions on one accelerator, in one command of at most 8 minutes: `python benchmarks/gpu.py`.

Writes JSON, a table and a picture to `benchmarks/results/gpu-<date>-<commit>/`. Checks first that the GPU generates the
bits that the CPU does, and that its adjoint is the same run to run. `--device cpu` with small sizes tries the script.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks.folder import new_folder
from benchmarks.step import build, stepper
from benchmarks.table import write
from lincon.generators import Hash, Ring

LIMIT = 8 * 60
"""Seconds after which nothing more is started."""


def timed(function: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Median seconds of a call, synchronised."""
    times = []
    for number in range(rounds + 2):
        _synchronize(device)
        start = time.perf_counter()
        function()
        _synchronize(device)
        if number > 1:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def check(device: torch.device) -> dict[str, bool]:
    """Equal bits on CPU and device, equal adjoints run to run."""
    result = {}
    for generator in (
        Ring(3_000_001, 46_080),
        Ring(3_000_001, 1_200_000),
        Ring(300_000, 2_011),
        Hash(3_000_001, 46_080),
    ):
        free, grad = torch.randn(generator.dof), torch.randn(generator.rows)
        here, there = generator.unpack(free), generator.unpack(free.to(device)).cpu()
        twice = [generator.adjoint(grad.to(device)) for _ in range(2)]
        result[f"{generator!r}: bits as on the CPU"] = torch.equal(here, there)
        result[f"{generator!r}: adjoint the same twice"] = torch.equal(*twice)
        close = torch.allclose(twice[0].cpu(), generator.adjoint(grad), rtol=1e-4, atol=1e-4)
        result[f"{generator!r}: adjoint as on the CPU"] = close
    return result


def unpack(
    rows: int, dof: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> list[dict[str, Any]]:
    """Copy, ring unpack into a buffer, and unpack with adjoint, at one size."""
    ring, free = Ring(rows, dof), torch.randn(dof, device=device, dtype=dtype)
    out, weights = (
        torch.empty(rows, device=device, dtype=dtype),
        torch.randn(rows, device=device, dtype=dtype),
    )
    copied = timed(lambda: out.copy_(weights), device, rounds)
    leaf = free.clone().requires_grad_()

    def step() -> None:
        leaf.grad = None
        ring.unpack(leaf).backward(weights)

    calls: dict[str, Callable[[], Any]] = {
        "copy into a buffer": lambda: out.copy_(weights),
        "ring into a buffer": lambda: ring.unpack(free, out=out),
        "ring unpack + adjoint": step,
    }
    group = f"unpack, rows {rows:,}, dof {dof:,}, {str(dtype).removeprefix('torch.')}"
    return [
        {
            "group": group,
            "name": name,
            "median": timed(call, device, rounds),
            "rounds": rounds,
            "reference": copied,
        }
        for name, call in calls.items()
    ]


def steps(device: torch.device, batch: int, rounds: int) -> list[dict[str, Any]]:
    """A ResNet-34 step in bfloat16, vanilla and constrained."""
    rows = []
    for mode in ("vanilla", "model", "layer"):
        step = stepper(build(34, mode, 0.5, str(device)), "sgd", batch, torch.bfloat16)
        seconds = timed(step, device, rounds)
        group = f"ResNet-34 step, bfloat16, batch {batch}"
        rows.append({"group": group, "name": mode, "median": seconds, "rounds": rounds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, nargs="+", default=[21_258_240, 1_000_000_000])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    device, begun = torch.device(options.device), time.monotonic()
    checks = check(device)
    print(json.dumps(checks, indent=1))
    rows: list[dict[str, Any]] = []
    for size in options.rows:
        for dof in (46_080, size // 9, size // 2):
            for dtype in (torch.float32, torch.bfloat16):
                if time.monotonic() - begun < LIMIT / 2:
                    rows += unpack(size, dof, dtype, device, options.rounds)
    if time.monotonic() - begun < LIMIT * 0.8:
        rows += steps(device, options.batch, options.rounds)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    identity = commit.stdout.strip() or "unknown"
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    machine = {"processor": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    folder = new_folder(options.out, f"gpu-{time.strftime('%Y-%m-%d')}-{identity[:8]}")
    result = {"machine": machine, "commit": {"id": identity}, "checks": checks, "rows": rows}
    (folder / "results.json").write_text(json.dumps(result, indent=1))
    write(folder)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
