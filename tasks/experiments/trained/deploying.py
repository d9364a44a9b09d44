"""Trained models outside of lincon: exported, and in eight bits."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lincon import LinconError
from lincon.exporting import export, save_program
from lincon.int8 import to_int8
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.trained.evaluate import measure
from lincon.tasks.experiments.training.recipe import Recipe, open_data
from lincon.tasks.experiments.training.record import reload

CALIBRATION = 32
"""Batches of training images that an eight-bit model is calibrated on, as torchvision's are."""


class Program(nn.Module):
    """Anything that computes as a model does, to be measured in its place."""

    def __init__(self, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.__dict__["run"] = (
            run  # exported programs refuse to be switched between training and evaluation
        )
        self.place = nn.Parameter(torch.empty(0))

    def forward(self, images: Tensor) -> Any:
        return self.__dict__["run"](images)


def deploy(
    folder: Path, file: Path, root: Path | None = None, *, int8: bool = False
) -> Iterator[str]:
    """Export the model that a training left in ``folder``, in eight bits if asked; what there is to say of it.

    Raises LinconError for a folder without a trained model, a format that there is not, or eight bits in another than
    ``.pt2``.
    """
    if int8 and file.suffix != ".pt2":
        raise LinconError(
            f"{file.name}: an eight-bit model is a program; its name must end in .pt2."
        )
    model, cell, recipe, _ = reload(folder)
    data = open_data(recipe, cell.seed, root)
    example = images_of(data, 2)
    if not int8:
        gap = export(model, file, example)
        yield f"written: {file}, {os.path.getsize(file):,} bytes; its outputs differ by {gap:.1g} of the largest"
        return
    program = to_int8(model, calibration(data))
    save_program(program, file, example)
    before, after = measure(model, recipe, data), measure_program(program, recipe, data)
    for each in find_task(cell.task).measures:
        yield f"test {each.label}: {' -> '.join(f'{each.factor * f[each.name]:.2f}' for f in (before, after))}"
    yield f"written: {file}, {os.path.getsize(file):,} bytes"


def images_of(data: Data, count: int, train: bool = False) -> Tensor:
    """The first images of the test part or the training part, as a model is given them."""
    split: Any = data.train_set if train else data.test_set
    images: Tensor = data.prepared(split[list(range(min(count, len(split))))], training=False)[0]
    return images


def calibration(data: Data) -> Iterator[Tensor]:
    """Batches of training images without augmentation."""
    split, size = data.train_set, data.batch
    for number in range(min(CALIBRATION, len(split) // size)):
        yield data.prepared(split[list(range(number * size, (number + 1) * size))], training=False)[
            0
        ]


def measure_program(run: Callable[[Tensor], Any], recipe: Recipe, data: Data) -> dict[str, float]:
    """Every measure of a program on the whole test set."""
    return measure(Program(run), recipe, data)


@torch.inference_mode()
def latency(run: Callable[[Tensor], Any], images: Tensor, repeats: int = 20) -> float:
    """Median seconds of one batch, after two that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = perf_counter()
        run(images)
        times.append(perf_counter() - start)
    return median(times[2:])
