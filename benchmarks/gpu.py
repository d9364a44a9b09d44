"""The speed of ring and step on one accelerator, in one command of at most 8 minutes.

    python benchmarks/gpu.py

It writes JSON, a table and a picture to `benchmarks/results/gpu-<date>-<commit>/`. First it checks
that the GPU generates the same bits as the CPU, and that its adjoint is the same in every run.
`--device cpu` with small sizes tries the script.

    python benchmarks/gpu.py --accuracy --out FOLDER --root FASHION-MNIST

trains the paper's networks instead, see `gpu_accuracy.py`; each call adds to the folder.
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

from benchmarks.results import RESULTS, Row, keep_speed
from benchmarks.step import MODES, build, stepper, unpack_step
from lincon.generators import Hash, Ring

LIMIT = 8 * 60
"""Seconds after which nothing more is started."""
CHECKED = (
    Ring(3_000_001, 46_080),
    Ring(3_000_001, 1_200_000),
    Ring(300_000, 2_011),
    Hash(3_000_001, 46_080),
)


def median_seconds(function: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Median seconds of a call, synchronised; two calls warm up."""
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
    """Whether CPU and device generate equal bits, and adjoints are equal from run to run."""
    result = {}
    for generator in CHECKED:
        free, grad = torch.randn(generator.dof), torch.randn(generator.rows)
        weights, of_device = generator.unpack(free), generator.unpack(free.to(device)).cpu()
        adjoint = generator.adjoint(grad)
        first, second = (generator.adjoint(grad.to(device)).cpu() for _ in range(2))
        close = torch.allclose(first, adjoint, rtol=1e-4, atol=1e-4)
        result[f"{generator!r}: bits as on the CPU"] = torch.equal(weights, of_device)
        result[f"{generator!r}: adjoint the same twice"] = torch.equal(first, second)
        result[f"{generator!r}: adjoint as on the CPU"] = close
    return result


def unpack_rows(
    rows: int, dof: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> list[Row]:
    """Copy, ring unpack into a buffer, and unpack with adjoint, at one size."""
    ring, free = Ring(rows, dof), torch.randn(dof, device=device, dtype=dtype)
    out = torch.empty(rows, device=device, dtype=dtype)
    weights = torch.randn(rows, device=device, dtype=dtype)
    calls: dict[str, Callable[[], Any]] = {
        "copy into a buffer": lambda: out.copy_(weights),
        "ring into a buffer": lambda: ring.unpack(free, out=out),
        "ring unpack + adjoint": unpack_step(ring.unpack, free, weights),
    }
    shared = {
        "group": f"unpack, rows {rows:,}, dof {dof:,}, {str(dtype).removeprefix('torch.')}",
        "rounds": rounds,
        "reference": median_seconds(calls["copy into a buffer"], device, rounds),
    }
    return [
        {"name": name, "median": median_seconds(call, device, rounds), **shared}
        for name, call in calls.items()
    ]


def step_rows(device: torch.device, batch: int, rounds: int) -> list[Row]:
    """A ResNet-34 step in bfloat16, vanilla and constrained."""
    rows = []
    for mode in MODES:
        step = stepper(build(34, mode, 0.5, str(device)), "sgd", batch, torch.bfloat16)
        seconds = median_seconds(step, device, rounds)
        group = f"ResNet-34 step, bfloat16, batch {batch}"
        rows.append({"group": group, "name": mode, "median": seconds, "rounds": rounds})
    return rows


def commit() -> str:
    """The commit of the checkout, or "unknown" outside of one."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, nargs="+", default=[21_258_240, 1_000_000_000])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int)
    parser.add_argument("--minutes", type=float, default=LIMIT / 60)
    parser.add_argument("--toy", action="store_true", help="small networks, to try the script")
    options = parser.parse_args()
    if options.accuracy:
        accuracy(options)
        return
    device, start = torch.device(options.device), time.monotonic()
    checks = check(device)
    print(json.dumps(checks, indent=1))
    rows: list[Row] = []
    for size in options.rows:
        for dof in (46_080, size // 9, size // 2):
            for dtype in (torch.float32, torch.bfloat16):
                if time.monotonic() - start < LIMIT / 2:
                    rows += unpack_rows(size, dof, dtype, device, options.rounds)
    if time.monotonic() - start < LIMIT * 0.8:
        rows += step_rows(device, options.batch, options.rounds)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    machine = {"processor": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result = {"machine": machine, "commit": {"id": commit()}, "checks": checks, "rows": rows}
    keep_speed(options.out, "gpu", result)


def accuracy(options: argparse.Namespace) -> None:
    """Train the networks of `gpu_accuracy`, or small ones, on Fashion-MNIST."""
    from benchmarks.gpu_accuracy import ROWS, accuracies
    from lincon.tasks.experiments.training.recipe import Recipe

    if options.out == RESULTS:
        raise SystemExit("--accuracy adds to a folder: give --out.")
    rows = tuple(("resnet-small", name, dof and 1_154) for _, name, dof in ROWS)
    recipe = Recipe(
        data="fashion-mnist",
        epochs=options.epochs,
        batch=min(options.batch, 256),
        images=options.images,
    )
    accuracies(
        options.out,
        recipe,
        options.root,
        torch.device(options.device),
        options.minutes,
        rows[:6] if options.toy else ROWS,
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
