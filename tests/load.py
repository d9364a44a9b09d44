"""A model under load: does memory grow, do threads disturb each other?

    python -m tests.load --steps 2000 --inferences 10000

trains and infers so often, with errors, copies and loads in between, and writes what the memory did to
`benchmarks/results`.
"""

import argparse
import copy
import ctypes
import gc
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lincon

WARM = 60
"""Rounds before memory is first measured: allocators, caches and hooks have settled by then."""

EVERY = 20
"""Of so many rounds, one is followed by an error, one by a deepcopy, one by a save and a load."""

ALLOWED = 16 << 20
"""Bytes by which resident memory may differ once the allocator has given back what is free.

A leak of one set of weights is found in 16 rounds, and one of 8 KiB in 2,000. safetensors 0.8 itself
keeps about 60 bytes for each tensor that is read.
"""


def network() -> nn.Sequential:
    """A model whose weights take 1 MiB: one leaked set for each round cannot be missed."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 1024), nn.Tanh(), nn.LayerNorm(1024), nn.Linear(1024, 192), nn.Linear(192, 4)
    )


def constrained(materialize: str) -> nn.Module:
    model = network()
    lincon.constrain(model, "ring", dof=0.1, materialize=materialize)
    return model


@dataclass
class Growth:
    """How much more there was at the end than after `WARM` rounds."""

    kind: str
    rounds: int
    resident: int
    """Bytes."""
    tensors: int
    objects: int


def training(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    loss: Tensor = model(torch.ones(4, 64)).square().mean()
    loss.backward()
    optimizer.step()


def inference(model: nn.Module) -> None:
    with torch.inference_mode():
        model(torch.ones(4, 64))


KINDS: dict[str, Callable[[nn.Module], None]] = {"training": training, "inference": inference}


def growth(kind: str, materialize: str, rounds: int) -> Growth:
    """Rounds of training or inference, with what may happen in between."""
    torch.set_num_threads(1)
    model, before = constrained(materialize), (0, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(WARM + rounds):
            if number == WARM:
                before = _held()
            KINDS[kind](model)
            model = _between(model, number % EVERY, Path(folder) / "model")
        after = _held()
    name = f"{kind}, materialize={materialize!r}"
    return Growth(name, rounds, *(late - early for early, late in zip(before, after, strict=True)))


def _between(model: nn.Module, number: int, path: Path) -> nn.Module:
    if number == 5:
        with suppress(RuntimeError):
            model(torch.ones(4, 63))
    if number == 10:
        return copy.deepcopy(model)
    if number == 15:
        (constraint,) = lincon.constraints(model)
        lincon.save(model, path)
        fresh = network()
        lincon.load(fresh, path)
        (loaded,) = lincon.constraints(fresh)
        loaded.materialize = constraint.materialize
        return fresh
    return model


def _held() -> tuple[int, int, int]:
    """Resident bytes, and the living tensors and objects of Python."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc's; it keeps what is freed, more or less of it
        ctypes.CDLL(None).malloc_trim(0)
    objects = gc.get_objects()
    # Of the type itself: some proxies that other packages make answer isinstance by an import.
    tensors = sum(issubclass(type(each), Tensor) for each in objects)
    return _resident(), tensors, len(objects)


def _resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def grew(found: Growth) -> bool:
    """Whether anything was kept. A few objects more are those of a collection that ran meanwhile."""
    return found.resident > ALLOWED or found.tensors > 0 or found.objects > 100


def outputs_of_threads(model: nn.Module, inputs: list[Tensor], rounds: int) -> list[list[Tensor]]:
    """What a thread for each input gets of one model, all at the same time."""
    outputs: list[list[Tensor]] = [[] for _ in inputs]
    begin = threading.Barrier(len(inputs))

    def infer(number: int) -> None:
        begin.wait()
        with torch.no_grad():
            outputs[number] += [model(inputs[number]) for _ in range(rounds)]

    threads = [threading.Thread(target=infer, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outputs


def main() -> None:
    from benchmarks.results import keep

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--inferences", type=int, default=10000)
    chosen: Any = parser.parse_args()
    rounds = {"training": chosen.steps, "inference": chosen.inferences}
    # Each in a process of its own: what one has left free in pieces, the next would not give back.
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        cases = [(kind, how, rounds[kind]) for kind in KINDS for how in ("model", "layer")]
        found = list(pool.map(growth, *zip(*cases, strict=True)))
    rows = [
        (each.kind, f"{each.rounds:,}", f"{each.resident / 2**20:+.2f}", each.tensors, each.objects)
        for each in found
    ]
    header = ("what", "rounds", "resident memory, MiB", "tensors", "objects")
    folder = keep("load", "What memory grew by", header, rows, [asdict(each) for each in found])
    print((folder / "table.md").read_text(), folder, sep="\n")
    sys.exit(any(map(grew, found)))


if __name__ == "__main__":
    main()
