"""The speed of ring and step on one accelerator, in one command of at most 8 minutes.

    python benchmarks/gpu.py

It writes JSON, a table and a picture to `benchmarks/results/gpu-<date>-<commit>/`. First it checks
that Triton's loops make the bits of torch's operations, that the GPU generates the same bits as the
CPU, and that its adjoint is the same in every run. `--device cpu` with small sizes tries the script
(under TRITON_INTERPRET=1 with Triton's loops). With `--resume file.json` every measurement is
written to that file as it is taken, and a run that was cut off goes on from there.
`--compile 80 90` compiles the loops for cards of these capabilities instead, and needs none.

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
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from benchmarks.results import RESULTS, Row, keep_speed
from benchmarks.step import MODES, build, stepper, unpack_step
from lincon.files.atomic import atomic_write
from lincon.generators import Hash, Ring
from lincon.maps.segments import Segments

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


def check_loops(device: torch.device) -> dict[str, bool]:
    """Whether Triton's loops make the bits of torch's operations, in every dtype with multipliers."""
    try:
        from lincon.kernels import gpu
    except ImportError as error:
        return {f"Triton's loops are there ({error})": False}
    try:
        gpu.check(device)
    except Exception as error:  # of Triton's compiler, or of the numbers
        return {f"Triton's loops work ({type(error).__name__}: {error})": False}
    result = {}
    for generator in (Ring(30_001, 2_100), Ring(3_001, 301, order="deck"), Hash(30_001, 2_100)):
        loop = generator.loop()
        index, sign = generator.entries(torch.arange(generator.rows, device=device))
        third, rows = generator.rows // 3, generator.rows
        segments = Segments([(0, third, 0.3), (third, rows, 1.7)])
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            free = torch.randn(generator.dof, device=device).to(dtype)
            expected, out = free[index] * sign, torch.empty(rows, device=device, dtype=dtype)
            expected[:third].mul_(0.3)
            expected[third:].mul_(1.7)
            if loop is not None:
                gpu.write(loop, out, free, 0, segments)
            name = f"{generator!r} in {dtype}: bits of torch's operations"
            result[name] = loop is not None and torch.equal(out, expected)
    return result


def compile_loops(capability: int) -> None:
    """Compile the loops of a ring and of hash in bfloat16 for a card that need not be there."""
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lincon.kernels import gpu_loops

    def built(loop: Any, pointers: list[str], **form: Any) -> None:
        *names, last = loop.arg_names
        types = pointers + ["i64"] * (len(names) - len(pointers))
        fixed = gpu_loops.Form(SIGNED=True, SCALED=True, SUM=tl.float32, **form)
        signature = {**dict(zip(names, types, strict=True)), last: "constexpr"}
        source = ASTSource(loop, signature, {(len(names),): fixed})
        target, exact = GPUTarget("cuda", capability, 32), {"enable_fp_fusion": False}
        size = len(triton.compile(source, target=target, options=exact).asm["cubin"])
        print(f"sm_{capability}: {loop.__name__} of {fixed.MAP}, {size} bytes", flush=True)

    rows, numbers = ["*bf16", "*bf16", "*i64"], "*i64"
    sums = ["*fp32", "*bf16"]
    built(gpu_loops.walk_laps, rows, MAP="ring", TILE=64, HIGH=128, WIDE=16)
    adds = ["*bf16", "*fp32", numbers]
    built(gpu_loops.walk_laps, adds, MAP="ring", TILE=64, HIGH=128, WIDE=16, ADDS=True)
    built(gpu_loops.sum_laps, [*sums, numbers], MAP="ring", TILE=64, HIGH=32, WIDE=1024)
    built(gpu_loops.sum_laps, [*sums, numbers], MAP="fold", TILE=64, HIGH=32, WIDE=1024)
    built(gpu_loops.write_points, rows, MAP="buckets", HIGH=16)
    built(gpu_loops.write_points, rows, MAP="decks", HIGH=16)
    built(gpu_loops.sum_decks, [*sums, numbers], MAP="decks", WIDE=1024)
    built(
        gpu_loops.write_table, ["*bf16", "*bf16", "*i32", "*i8", numbers], MAP="tabled", WIDE=1024
    )
    built(gpu_loops.sum_sorted, [*sums, "*i32", numbers], MAP="buckets", HIGH=128, WIDE=8)


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


def resumed(path: Path | None, what: str, take: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a measurement: those of the file, if this commit has taken it, or taken now."""
    kept = json.loads(path.read_text()) if path is not None and path.exists() else {}
    name = f"{commit()} {what}"
    if name not in kept:
        kept[name] = take()
        if path is not None:
            with atomic_write(path) as draft:
                draft.write_text(json.dumps(kept, indent=1))
    rows: list[Row] = kept[name]
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
    parser.add_argument("--resume", type=Path, help="where measurements are kept as they are taken")
    parser.add_argument("--compile", type=int, nargs="+", help="capabilities, such as 80 or 90")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int)
    parser.add_argument("--minutes", type=float, default=LIMIT / 60)
    parser.add_argument("--toy", action="store_true", help="small networks, to try the script")
    options = parser.parse_args()
    if options.compile:
        for capability in options.compile:
            compile_loops(capability)
        return
    if options.accuracy:
        accuracy(options)
        return
    device, start = torch.device(options.device), time.monotonic()
    checks = {**check_loops(device), **check(device)}
    print(json.dumps(checks, indent=1))
    rows: list[Row] = []
    for size in options.rows:
        for dtype in (torch.bfloat16, torch.float32):  # first what is promised
            for dof in (size // 9, 46_080, size // 2):
                if time.monotonic() - start < LIMIT / 2:
                    what = f"{size} {dof} {dtype}"
                    take = partial(unpack_rows, size, dof, dtype, device, options.rounds)
                    rows += resumed(options.resume, what, take)
    if time.monotonic() - start < LIMIT * 0.8:
        take = partial(step_rows, device, options.batch, options.rounds)
        rows += resumed(options.resume, f"step {options.batch}", take)
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
