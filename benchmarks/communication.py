"""What two processes send each other in a training step, and what the step takes: constrained against vanilla.

    python -m benchmarks.communication

DDP over gloo, one thread a process, ResNet-34 on CIFAR-shaped batches, SGD with momentum. Bytes are counted where DDP
hands its buckets over; the models step in turn, and times are medians, of the slowest process.
"""

import argparse
import os
import statistics
import tempfile
import time
from operator import truediv
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.keeping import keep
from benchmarks.step import build, stepper
from lincon.recycling import keep_pages

DOFS = {"vanilla": 1.0, "ring, 50 %": 0.5, "ring, 10 %": 0.1, "ring, 0.2 %": 0.002}
PROCESSES = 2


def counted(sizes: list[int], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's own all-reduce of a bucket, whose bytes are counted."""
    sizes.append(bucket.buffer().nbytes)
    return allreduce_hook(dist.group.WORLD, bucket)


def measure(rank: int, folder: str, batch: int, rounds: int) -> None:
    """One process: every model, in turn."""
    torch.set_num_threads(1)
    keep_pages()
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    sizes: dict[str, list[int]] = {name: [] for name in DOFS}
    steps = {}
    for name, dof in DOFS.items():
        model = DistributedDataParallel(build(34, "vanilla" if name == "vanilla" else "model", dof))
        model.register_comm_hook(sizes[name], counted)
        steps[name] = stepper(model, "sgd", batch)
    for step in steps.values():
        step()
        step()  # DDP's buckets are as they stay from the second step on
    times: dict[str, list[float]] = {name: [] for name in DOFS}
    for _ in range(rounds):
        for name, step in steps.items():
            sizes[name].clear()
            dist.barrier()
            begun = time.perf_counter()
            step()
            slowest = torch.tensor(time.perf_counter() - begun)
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
            times[name].append(float(slowest))
    if rank == 0:
        found = {name: {"bytes": sum(sizes[name]), "seconds": times[name]} for name in DOFS}
        torch.save({**found, "reduce": reducing(sizes)}, f"{folder}/found.pt")
    else:
        reducing(sizes)
    dist.barrier()
    os._exit(0)  # gloo's threads abort now and then where the interpreter ends in order


def reducing(sizes: dict[str, list[int]]) -> dict[str, float]:
    """Seconds of an all-reduce of as many bytes alone, by name of the model."""
    found = {}
    for name, buckets in sizes.items():
        sent, times = torch.zeros(sum(buckets) // 4), []
        for _ in range(7):
            dist.barrier()
            begun = time.perf_counter()
            dist.all_reduce(sent)
            times.append(time.perf_counter() - begun)
        found[name] = statistics.median(times)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8, help="Images a process and step.")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            measure, (folder, given.batch, given.rounds), PROCESSES, start_method="spawn"
        )
        found = torch.load(Path(folder) / "found.pt", weights_only=True)
    reduce = found.pop("reduce")
    vanilla = found["vanilla"]
    rows = [
        (
            name,
            f"{one['bytes']:,}",
            f"{one['bytes'] / vanilla['bytes']:.4f}",
            f"{1e3 * reduce[name]:.1f}",
            f"{statistics.median(one['seconds']):.3f}",
            f"{statistics.median(map(truediv, one['seconds'], vanilla['seconds'])):.3f}",
        )
        for name, one in found.items()
    ]
    header = "model", "bytes a step", "/ vanilla", "all-reduce alone, ms", "step, s", "/ vanilla"
    title = (
        f"ResNet-34, DDP over gloo, {PROCESSES} processes of one thread, {given.batch} images each"
    )
    print(
        keep(
            "communication",
            title,
            header,
            rows,
            {"models": found, "reduce": reduce, "arguments": vars(given)},
        )
    )


if __name__ == "__main__":
    main()
