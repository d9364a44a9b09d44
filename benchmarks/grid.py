"""Unpack and adjoint at every size, in turn with a copy of the weights and the obvious way.

    python -m benchmarks.grid --rows 1000 1000000 --threads 1 2 --generators ring hash

In every round each way runs once, float32, after a copy of the weights. A cell is unpack /
adjoint as multiples of a copy, and in brackets of what one would write otherwise
(`benchmarks.obvious`): an index table and a mask, a stored matrix. A dash stands where that would
not fit, or the generator would take over `SLOWEST` multiplications. Each is the least of many
rounds, because other processes only add to a time.
`buffer` is the first generator's unpack into a tensor that is there, as the copy is. Freed memory
stays in the process (`lincon.recycling.keep_pages`), as in training. With --tensors the rows are those of as many
tensors of equal size, each with a multiplier. --keep writes a folder under benchmarks/results.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from benchmarks.obvious import OBVIOUS, table
from benchmarks.results import Table
from lincon.generator import Generator
from lincon.generators import Codebook, get
from lincon.maps.scaled import Scaled
from lincon.recycling import keep_pages

ROWS = [1_000, 10_000, 100_000, 300_000, 1_000_000, 10_000_000]
FRACTIONS = [0.5, 0.1, 0.01]
SLOWEST = 4e9
"""Multiplications of the slowest map that is timed: some seconds."""
Ways = dict[str, Callable[[], Any]]


def generator_of(name: str, rows: int, dof: int, tensors: int) -> Generator:
    """A generator, whose rows are those of some tensors with a multiplier each."""
    index = {"index": torch.randint(dof, (rows,))} if name == "codebook" else {}
    generator = Codebook(rows, dof, **index) if index else get(name)(rows, dof)
    if tensors == 1:
        return generator
    cuts = [rows * number // tensors for number in range(tensors + 1)]
    sizes = [high - low for low, high in pairwise(cuts)]
    scales = [1 + number / tensors for number in range(tensors)]
    return Scaled(generator, sizes, scales, isometric=False)


def ways_of(names: list[str], rows: int, dof: int, tensors: int) -> Ways:
    """Everything that is timed, by name."""
    free, weights, out = torch.randn(dof), torch.randn(rows), torch.empty(rows)
    ways: Ways = {"copy": lambda: out.copy_(weights)}

    def add(
        name: str, unpack: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]
    ) -> None:
        ways[name] = lambda: unpack(free)
        ways[f"{name} adjoint"] = lambda: adjoint(weights)

    add("table", *table(rows, dof))
    for name in names:
        generator = generator_of(name, rows, dof, tensors)
        if (generator.work(rows) or rows) > SLOWEST:
            continue
        add(name, generator.unpack, generator.adjoint)
        if name in OBVIOUS and (obvious := OBVIOUS[name](rows, dof)) is not None:
            add(f"{name} obvious", *obvious)
        if "buffer" not in ways:
            ways["buffer"] = lambda generator=generator: generator.unpack(free, out=out)
    return ways


def least(ways: Ways, seconds: float) -> dict[str, float]:
    """The least time of each way; all take turns for some seconds, at least five times."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["copy"]) < 5:
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def cell(times: dict[str, float], name: str) -> str:
    """Unpack / adjoint in copies, and in brackets in those of the obvious way."""
    if name not in times:
        return "-"
    both = times[name], times[f"{name} adjoint"]
    copies = " / ".join(f"{each / times['copy']:.1f}" for each in both)
    other = f"{name} obvious" if name in OBVIOUS else "table"
    if other not in times:
        return f"{copies} (-)"
    ways = times[other], times[f"{other} adjoint"]
    ratios = " / ".join(f"{each / way:.2f}" for each, way in zip(both, ways, strict=True))
    return f"{copies} ({ratios})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--dof", type=float, nargs="+", default=FRACTIONS, help="of the rows")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--generators", nargs="+", default=["ring", "hash", "random", "fold"])
    parser.add_argument("--tensors", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=0.5, help="of each line")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    keep_pages()
    columns = "threads", "tensors", "rows", "dof", "copy, µs", "buffer", "table"
    measured = Table([*columns, *options.generators])
    grid = product(options.threads, options.tensors, options.rows, options.dof)
    for threads, tensors, rows, fraction in grid:
        torch.set_num_threads(threads)
        dof = max(1, int(rows * fraction))
        times = least(ways_of(options.generators, rows, dof, tensors), options.seconds)
        cells = [cell(times, name) for name in ["table", *options.generators]]
        copy, buffer = f"{1e6 * times['copy']:.1f}", f"{times.get('buffer', 0) / times['copy']:.1f}"
        measured.add(
            [threads, tensors, f"{rows:,}", f"{dof:,}", copy, buffer, *cells],
            {"threads": threads, "tensors": tensors, "rows": rows, "dof": dof, **times},
        )
    if options.keep:
        title = "Unpack / adjoint in copies of the weights (in brackets: of the obvious way)"
        measured.keep("grid", title)


if __name__ == "__main__":
    main()
