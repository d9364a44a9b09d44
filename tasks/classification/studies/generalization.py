"""Generalization: the gap between training and test accuracy, and accuracy on shifted images."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lincon import LinconError
from lincon.counter import key
from lincon.figure import Figure
from lincon.tasks.classification.data import Images
from lincon.tasks.classification.data.images import floats
from lincon.tasks.classification.data.objectnet import ObjectNet, protocol
from lincon.tasks.classification.data.shifts import SHIFTS, STRENGTHS, Shift
from lincon.tasks.classification.learner import MEASURES, accuracy
from lincon.tasks.experiments.data.sets import digest
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps import gap
from lincon.tasks.experiments.sweeps.curves import group_by_label
from lincon.tasks.experiments.sweeps.figures import band, figure_of, legend, panels, shares
from lincon.tasks.experiments.sweeps.picked import with_picked
from lincon.tasks.experiments.sweeps.report import Result
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tune import tune
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run

Shifted = dict[str, list[float]]
"""Accuracies, fractions, by shift: one a strength; on ObjectNet by protocol, a list of one."""

NOTE = (
    "Gap: training minus test accuracy, in points, both of the trained model on images without "
    "augmentation. Shifted: mean over the strengths 1 to 5 of each shift of the test images; the "
    "models have not seen any of them in training."
)


def generalization(sweep: Sweep, objectnet: Path | None = None) -> Result:
    """Train every cell, evaluate the trained models, and write table, numbers and picture.

    Evaluations are stored beside the runs, so another call continues where one was interrupted.

    Args:
        objectnet: the folder of ObjectNet, for models of ImageNet. By default the models are
            evaluated on shifts of the test set.
    """
    data = sweep.data
    assert isinstance(data, Images)
    if objectnet is not None:  # before hours of training, not after
        if data.name != "imagenet":
            raise LinconError(
                f"ObjectNet tests models of imagenet, not of {data.name}; leave --objectnet out."
            )
        ObjectNet(objectnet)
    else:
        _check_range(data)
    sweep = tune(sweep)
    runs = sweep.run()
    shifted = [_evaluated(sweep, cell, data, objectnet) for cell in sweep.cells]
    result = summarise(runs, shifted, sweep.title)
    result = with_picked(result, sweep, [group[0] for group in group_by_label(runs).values()])
    result.write(sweep, runs)
    return result


def _check_range(data: Images) -> None:
    """Raise LinconError unless images are from black, 0, to white, 1, as shifts take them to be."""
    some = floats(data.test_set[list(range(min(64, len(data.test_set))))].images)
    if float(some.min()) < 0 or float(some.max()) > 1:
        raise LinconError(
            f"Images from {float(some.min()):g} to {float(some.max()):g} cannot be shifted, since "
            "nothing says what is black and white: give uint8, or floats from 0 to 1."
        )


def _evaluated(sweep: Sweep, cell: Cell, data: Images, objectnet: Path | None) -> Shifted:
    """The accuracies of a trained model: those kept beside it, if they are of this very file."""
    place = sweep.store.place(cell) / ("objectnet.json" if objectnet else "shifted.json")
    images = str(objectnet.resolve()) if objectnet else ""
    of = digest(sweep.store.model(cell).read_bytes(), images)
    if place.exists() and (kept := _read(place)).get("of") == of:
        return dict(kept["accuracies"])
    model = sweep.load(cell)
    accuracies = on_objectnet(model, data, objectnet) if objectnet else on_shifts(model, data)
    write_output(place, json.dumps({"of": of, "accuracies": accuracies}))
    return accuracies


def _read(place: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(place.read_text()))
    except (ValueError, TypeError):
        raise LinconError(f"{place} is damaged: delete it, and call again.") from None


def on_shifts(model: nn.Module, data: Images) -> Shifted:
    """Accuracy on the shifted test set. The shifts are the same for every model."""
    accuracies: Shifted = {}
    for number, (name, shift) in enumerate(SHIFTS.items()):
        accuracies[name] = []
        for strength in range(1, len(STRENGTHS[name]) + 1):
            generator = torch.Generator().manual_seed(key(number, strength))
            shifted = _at(shift, strength, generator)
            accuracies[name].append(accuracy(model, data, shift=shifted))
    return accuracies


def _at(shift: Shift, strength: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    return lambda images: shift(images, strength, generator)


@torch.inference_mode()
def on_objectnet(model: nn.Module, data: Images, root: Path) -> Shifted:
    """Accuracy on ObjectNet by its three protocols."""
    model.eval()
    images = ObjectNet(root)
    correct: dict[str, list[Tensor]] = {which: [] for which in "ABC"}
    for start in range(0, len(images), 64):
        batch, labels = images[list(range(start, min(start + 64, len(images))))]
        logits = model(data.prepare(batch))
        for which, batches in correct.items():
            batches.append(protocol(logits, labels, images.mapping, which))
    return {
        f"ObjectNet {which}": [float(torch.cat(batches).double().mean())]
        for which, batches in correct.items()
    }


def summarise(runs: Sequence[Run], shifted: Sequence[Shifted], title: str) -> Result:
    """The result of runs and their accuracies on shifted images, ``shifted``."""
    by_run = {id(run): accuracies for run, accuracies in zip(runs, shifted, strict=True)}
    columns = {
        name: {run: 100 * mean(accuracies[name]) for run, accuracies in by_run.items()}
        for name in shifted[0]
    }
    header, rows, table = gap.tabulate(runs, MEASURES[0], columns)
    numbers: dict[str, Any] = {"table": table, "shifted": list(shifted), "strengths": STRENGTHS}
    return Result(title, header, rows, numbers, picture(runs, by_run, title), [NOTE])


def picture(runs: Sequence[Run], by_run: dict[int, Shifted], title: str) -> Figure:
    """Accuracy against the strength of each shift (0: none), a line and band for each scheme."""
    names, groups = list(next(iter(by_run.values()))), group_by_label(runs)
    parts = list(product(names, shares(list(groups))))
    grid = panels(len(parts), title)
    for axes, (name, part) in zip(grid, parts, strict=True):
        for label in part:
            rows = [[run.score, *by_run[id(run)][name]] for run in groups[label]]
            values = 100 * np.array(rows)
            band(axes, range(values.shape[1]), values, list(groups).index(label), label)
        axes.set(xlabel="strength", ylabel="accuracy (%)")
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
    legend(grid)
    return figure_of(grid[0])
