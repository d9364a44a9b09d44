"""Processes that talk to each other by gloo, for tests: forked from one that has imported what they need."""

import multiprocessing
import os
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LIMIT = timedelta(seconds=60)  # for a collective that another rank does not join

multiprocessing.set_forkserver_preload(["tests.preloaded"])


def on_ranks(world, work, folder, *arguments):
    """What ``work(rank, world, *arguments)`` returns on each of ``world`` ranks, by rank: tensors and plain values."""
    mp.start_processes(
        _rank, (world, work, Path(folder), arguments), world, start_method="forkserver"
    )
    return [
        torch.load(Path(folder) / f"rank-{rank}.pt", weights_only=True) for rank in range(world)
    ]


def _rank(rank, world, work, folder, arguments):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/meeting", LIMIT, rank=rank, world_size=world)
    torch.save(work(rank, world, *arguments), folder / f"rank-{rank}.pt")
    dist.barrier()
    os._exit(0)  # gloo's threads abort now and then where the interpreter ends in order


def under_torchrun(world, folder, *words):
    """The output of a command of lincon on each of ``world`` processes of a node, as torchrun has them.

    Digits are not augmented: see `unaugmented.py`.
    """
    folder.mkdir()
    done = on_ranks(world, _command, folder, list(map(str, words)))
    assert not any(code for code, _ in done), done
    return [output for _, output in done]


def _command(rank, world, words):
    from lightning.pytorch.utilities import rank_zero_only
    from typer.testing import CliRunner

    from lincon.tasks.commands.cli import app

    from .unaugmented import unaugmented

    names = ("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", world)
    os.environ.update({name: str(number) for name, number in names}, TORCHELASTIC_RUN_ID="tests")
    rank_zero_only.rank = rank  # which Lightning reads where it is imported
    unaugmented()
    done = CliRunner().invoke(app, words)
    if done.exception and not isinstance(done.exception, SystemExit):
        traceback.print_exception(done.exception)  # what went wrong on this rank
    return done.exit_code, done.output


def outcome(work, *arguments):
    """What ``work`` returns, or the text of what it raises: other ranks go on."""
    try:
        return work(*arguments)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
