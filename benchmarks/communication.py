"""Bytes that two processes send each other in a training step, and the time of the step.

    python -m benchmarks.communication --batch 8 --rounds 15

DDP over gloo, one thread a process, ResNet-34 on CIFAR-shaped batches, SGD with momentum. Bytes are
counted where DDP hands its buckets over. The models step in turn; times are medians over the
rounds, of the slowest process in each.
"""

import argparse
import os
import statistics
import tempfile
import time
from operator import truediv
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.results import keep
from benchmarks.step import build, stepper
from lincon.recycling import keep_pages

DOFS = {"vanilla": 1.0, "ring, 50 %": 0.5, "ring, 10 %": 0.1, "ring, 0.2 %": 0.002}
PROCESSES = 2


def all_reduce(sizes: list[int], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's own all-reduce of a bucket, which also counts the bytes."""
    sizes.append(bucket.buffer().nbytes)
    return allreduce_hook(dist.group.WORLD, bucket)


def measure(rank: int, folder: str, batch: int, rounds: int) -> None:
    """One process: every model steps in turn."""
    torch.set_num_threads(1)
    keep_pages()
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    sizes: dict[str, list[int]] = {name: [] for name in DOFS}
    steps = {}
    for name, dof in DOFS.items():
        model = DistributedDataParallel(build(34, "vanilla" if name == "vanilla" else "model", dof))
        model.register_comm_hook(sizes[name], all_reduce)
        steps[name] = stepper(model, "sgd", batch)
    for step in steps.values():
        step()
        step()  # DDP's buckets stay as they are from the second step on
    times: dict[str, list[float]] = {name: [] for name in DOFS}
    for _ in range(rounds):
        for name, step in steps.items():
            sizes[name].clear()
            dist.barrier()
            start = time.perf_counter()
            step()
            slowest = torch.tensor(time.perf_counter() - start)
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
            times[name].append(float(slowest))
    reduce_seconds = {name: seconds_to_reduce(sum(sizes[name])) for name in DOFS}
    if rank == 0:
        models = {name: {"bytes": sum(sizes[name]), "seconds": times[name]} for name in DOFS}
        torch.save({"models": models, "reduce": reduce_seconds}, f"{folder}/measured.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads abort now and then where the interpreter ends in order


def seconds_to_reduce(size: int) -> float:
    """Median seconds of an all-reduce of so many bytes alone."""
    values, times = torch.zeros(size // 4), []
    for _ in range(7):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(values)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table_rows(models: dict[str, Any], reduce_seconds: dict[str, float]) -> list[tuple[str, ...]]:
    """A line for each model, with its ratios to vanilla."""
    vanilla = models["vanilla"]
    rows: list[tuple[str, ...]] = []
    for name, measured in models.items():
        step_ratios = map(truediv, measured["seconds"], vanilla["seconds"])
        row = (
            name,
            f"{measured['bytes']:,}",
            f"{measured['bytes'] / vanilla['bytes']:.4f}",
            f"{1e3 * reduce_seconds[name]:.1f}",
            f"{statistics.median(measured['seconds']):.3f}",
            f"{statistics.median(step_ratios):.3f}",
        )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8, help="Images a process and step.")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (folder, options.batch, options.rounds)
        mp.start_processes(measure, arguments, PROCESSES, start_method="spawn")
        numbers = torch.load(Path(folder) / "measured.pt", weights_only=True)
    rows = table_rows(numbers["models"], numbers["reduce"])
    header = "model", "bytes a step", "/ vanilla", "all-reduce alone, ms", "step, s", "/ vanilla"
    processes = f"{PROCESSES} processes of one thread, {options.batch} images each"
    title = f"ResNet-34, DDP over gloo, {processes}"
    print(keep("communication", title, header, rows, numbers | {"arguments": vars(options)}))


if __name__ == "__main__":
    main()
