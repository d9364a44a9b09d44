"""Processes that talk to each other by gloo, for tests."""

import os
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LIMIT = timedelta(seconds=60)  # for a collective that another rank does not join


def on_ranks(world, work, folder, *arguments):
    """What ``work(rank, world, *arguments)`` returns on each of ``world`` ranks, by rank: tensors and plain values."""
    mp.start_processes(_rank, (world, work, Path(folder), arguments), world, start_method="spawn")
    return [torch.load(Path(folder) / f"rank-{rank}.pt", weights_only=True) for rank in range(world)]


def _rank(rank, world, work, folder, arguments):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/meeting", LIMIT, rank=rank, world_size=world)
    torch.save(work(rank, world, *arguments), folder / f"rank-{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads abort now and then where the interpreter ends in order


def outcome(work, *arguments):
    """What ``work`` returns, or the text of what it raises: other ranks go on."""
    try:
        return work(*arguments)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
