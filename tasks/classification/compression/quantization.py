"""The cost of quantisation: eight-bit execution, and free vectors of 8 and 4 bits."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import lincon
from lincon.exporting import merged_copy
from lincon.int8 import compiled, stored_bytes, to_int8
from lincon.tasks.experiments.sweeps import compare
from lincon.tasks.experiments.sweeps.against import against
from lincon.tasks.experiments.sweeps.columns import mean_of
from lincon.tasks.experiments.sweeps.report import Result
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tables import Columns
from lincon.tasks.experiments.trained.deploying import (
    calibration,
    images_of,
    latency,
    measure_program,
)
from lincon.tasks.experiments.trained.evaluate import measure
from lincon.tasks.experiments.trained.tuning import as_constrained
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.record import SAVED
from lincon.tasks.experiments.training.run import Run

BITS = 8, 4
BATCH = 64
"""Images whose latency is measured."""


@dataclass(frozen=True)
class Quantised:
    """One trained model, quantised in every way.

    int8, int8_bytes: the score of the merged model in eight-bit execution, and the bytes of its
        tensors.
    free, bytes: by bits, the score with the free vector quantised to so many, and the size of the
        file.
    milliseconds: latency of a batch of `BATCH` images, as float32 and as int8, both compiled; for
        the first seed only.
    """

    int8: float
    int8_bytes: int
    free: dict[int, float]
    bytes: dict[int, int]
    milliseconds: tuple[float, float] | None


def quantised(sweep: Sweep, cell: Cell, timed: bool) -> Quantised:
    """Quantise the trained model of a cell. ``timed``: whether to measure its latency."""
    model = sweep.load(cell).eval()
    score = sweep.measures[0].name
    program = to_int8(model, calibration(sweep.data))
    free, sizes = {}, {}
    for bits in BITS:
        narrow = deepcopy(model)
        as_constrained(narrow)
        lincon.quantize(narrow, bits)
        free[bits] = measure(narrow, sweep.recipe, sweep.data)[score]
        with TemporaryDirectory() as folder:
            sizes[bits] = lincon.save(narrow, Path(folder) / SAVED)
    int8 = measure_program(program, sweep.recipe, sweep.data)[score]
    milliseconds = _milliseconds(model, program, sweep) if timed else None
    return Quantised(int8, stored_bytes(program), free, sizes, milliseconds)


def _milliseconds(model: nn.Module, program: nn.Module, sweep: Sweep) -> tuple[float, float]:
    images = images_of(sweep.data, BATCH)
    plain: Any = torch.compile(merged_copy(model))
    fast = compiled(program, images)
    return 1e3 * latency(plain, images), 1e3 * latency(fast, images)


def with_quantisation(sweep: Sweep, objectnet: Path | None = None) -> tuple[Result, Columns]:
    """Train, quantise, and report the cost of every way."""
    result = compare.compare(sweep)
    first_seed = sweep.cells[0].seed
    models = {_key(cell): quantised(sweep, cell, cell.seed == first_seed) for cell in sweep.cells}

    def column(value: Callable[[Run, Quantised], float]) -> Callable[[Sequence[Run]], str]:
        return mean_of(lambda run: value(run, models[_key_of(run)]))

    def sizes(bytes_of: Callable[[Run, Quantised], int]) -> Callable[[Sequence[Run]], str]:
        return lambda runs: f"{mean(bytes_of(run, models[_key_of(run)]) for run in runs):,.0f}"

    def milliseconds(number: int) -> Callable[[Sequence[Run]], str]:
        def text(runs: Sequence[Run]) -> str:
            timings = [models[_key_of(run)].milliseconds for run in runs]
            return next(f"{timing[number]:.2f}" for timing in timings if timing)

        return text

    numbers = [{"cell": list(key), **vars(each)} for key, each in models.items()]
    figure = against(_by_bits(sweep, models), result.title, "bits", "test accuracy (%)")
    return replace(result, figure=figure, numbers={**result.numbers, "quantised": numbers}), {
        "before %": column(lambda run, q: 100 * run.score),
        "int8 %": column(lambda run, q: 100 * q.int8),
        "drop": column(lambda run, q: 100 * (run.score - q.int8)),
        "W in 8 bits %": column(lambda run, q: 100 * q.free[8]),
        "W in 4 bits %": column(lambda run, q: 100 * q.free[4]),
        "file bytes": sizes(lambda run, q: run.file_bytes),
        "W in 8 bits, bytes": sizes(lambda run, q: q.bytes[8]),
        "W in 4 bits, bytes": sizes(lambda run, q: q.bytes[4]),
        "int8, bytes": sizes(lambda run, q: q.int8_bytes),
        f"ms / {BATCH}, float32": milliseconds(0),
        f"ms / {BATCH}, int8": milliseconds(1),
    }


def _by_bits(
    sweep: Sweep, models: Mapping[tuple[Any, ...], Quantised]
) -> dict[str, dict[float, list[float]]]:
    """Test accuracies (%) by scheme and the bits of the free vector; 32 are those of training."""
    curves: dict[str, dict[float, list[float]]] = {}
    for run in sweep.finished():
        scores = {32: run.score, **models[_key_of(run)].free}
        for bits, score in scores.items():
            curves.setdefault(run.scheme, {}).setdefault(bits, []).append(100 * score)
    return curves


def _key(cell: Cell) -> tuple[Any, ...]:
    return cell.model, cell.scheme, cell.dof, cell.seed


def _key_of(run: Run) -> tuple[Any, ...]:
    return run.model, run.scheme, run.asked, run.seed
