"""Trained models outside of lincon: exported, and in eight bits."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lincon import LinconError
from lincon.exporting import MARK, export, save_program
from lincon.files.atomic import check_replaceable
from lincon.int8 import to_int8
from lincon.shapes import Num
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.trained.evaluate import measure
from lincon.tasks.experiments.training.recipe import Recipe
from lincon.tasks.experiments.training.record import reload, reopen

CALIBRATION = 32
"""Batches of training images with which an eight-bit model is calibrated; torchvision's default."""

Images = Num[Tensor, "batch channels height width"]


class Program(nn.Module):
    """A module that computes by any callable, so that this can be measured as a model is."""

    def __init__(self, run: Callable[[Images], Any]) -> None:
        super().__init__()
        # No submodule: exported programs refuse to be switched between training and evaluation.
        self.__dict__["run"] = run
        self.place = nn.Parameter(torch.empty(0))  # tells the device

    def forward(self, images: Images) -> Any:
        return self.__dict__["run"](images)


def deploy(
    folder: Path, file: Path, root: Path | None = None, *, int8: bool = False
) -> Iterator[str]:
    """Export the model that a training left in ``folder``; yields lines that say what was done.

    Args:
        folder: of a training.
        file: is written; its suffix names the format, as in `lincon.exporting.export`.
        root: folder of the data set, for one that is not embedded.
        int8: execute the model in eight bits, calibrated with training images; ``.pt2`` only.

    Raises:
        LinconError: a folder without a trained model, an unknown format, eight bits in another
            than ``.pt2``, or a ``file`` that exists and is no export.
    """
    if int8 and file.suffix != ".pt2":
        raise LinconError(
            f"{file.name}: an eight-bit model is a program; its name must end in .pt2."
        )
    check_replaceable(file, MARK)  # before the data are read and the model is calibrated
    model, cell, recipe, _ = reload(folder)
    data = reopen(folder, recipe, cell, root)
    example = images_of(data, 2)
    if not int8:
        gap = export(model, file, example)
        yield (
            f"written: {file}, {file.stat().st_size:,} bytes; "
            f"its outputs differ by {gap:.1g} of the largest"
        )
        return
    program = to_int8(model, calibration(data))
    save_program(program, file, example)
    before, after = measure(model, recipe, data), measure_program(program, recipe, data)
    for each in find_task(cell.task).measures:
        yield f"test {each.label}: {each.shown(before)} -> {each.shown(after)}"
    yield f"written: {file}, {file.stat().st_size:,} bytes"


def images_of(data: Data, count: int, train: bool = False) -> Images:
    """The first images of the test part or the training part, as a model takes them."""
    split: Any = data.train_set if train else data.test_set
    return _prepared_images(data, split, range(min(count, len(split))))


def calibration(data: Data) -> Iterator[Images]:
    """Batches of training images without augmentation."""
    batches = min(CALIBRATION, len(data.train_set) // data.batch)
    for first in range(0, batches * data.batch, data.batch):
        yield _prepared_images(data, data.train_set, range(first, first + data.batch))


def measure_program(run: Callable[[Images], Any], recipe: Recipe, data: Data) -> dict[str, float]:
    """Every measure of a program on the whole test set, by name."""
    return measure(Program(run), recipe, data)


@torch.inference_mode()
def latency(run: Callable[[Images], Any], images: Images, repeats: int = 20) -> float:
    """Median seconds of one batch, after two batches that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = perf_counter()
        run(images)
        times.append(perf_counter() - start)
    return median(times[2:])


def _prepared_images(data: Data, split: Any, indices: range) -> Images:
    images: Images = data.prepared(split[list(indices)], training=False)[0]
    return images
