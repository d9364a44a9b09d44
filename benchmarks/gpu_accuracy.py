"""The paper's own networks on Fashion-MNIST, on one accelerator, training by training.

Each training is a file of JSON in the folder `runs` of the results. A call trains those that are
missing, seed by seed, and starts none that would not end within its minutes: so several calls add up.
The data set lies on the device, whole; the model is in channels last, and computes in bfloat16.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from lincon.counter import key
from lincon.files.atomic import atomic_write
from lincon.tasks.classification.learner import MEASURES, Classifier
from lincon.tasks.classification.tables import RING_2M, RING_11M
from lincon.tasks.experiments.schemes.body import count_parameters
from lincon.tasks.experiments.sweeps.compare import summarise
from lincon.tasks.experiments.sweeps.provenance import provenance
from lincon.tasks.experiments.training.learner import evaluate, schedule
from lincon.tasks.experiments.training.models import build, scheme_of
from lincon.tasks.experiments.training.recipe import Cell, Recipe, describe, open_data
from lincon.tasks.experiments.training.run import Run

ROWS: tuple[tuple[str, str, int | None], ...] = (
    ("resnet34", "rpg", RING_11M),
    ("resnet34", "random", RING_11M),
    ("resnet34", "hash", RING_11M),
    ("resnet34", "rpg-block", RING_11M),
    ("resnet34", "vanilla", None),
    ("resnet18", "vanilla", None),
    ("resnet34", "rpg", RING_2M),
    ("resnet34", "rpg", 46_080),
)
"""Model, scheme and DoF, the most informative first."""

SEEDS = 100
"""So many seeds may be trained, over all calls."""


def cells(rows: tuple[tuple[str, str, int | None], ...] = ROWS) -> Iterator[Cell]:
    """All trainings, seed by seed."""
    for seed in range(SEEDS):
        for model, scheme, dof in rows:
            yield Cell(model, scheme, dof, seed)


def train(cell: Cell, recipe: Recipe, root: Path | None, device: torch.device) -> Run:
    """One training; the order of the images is that of `Data.train_dataloader`."""
    data = open_data(recipe, cell.seed, root)
    model = build(cell, data.shape).to(device, memory_format=torch.channels_last)
    learner = Classifier(model, data, recipe).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    images, labels = (each.to(device) for each in data.train_set.tensors)
    full = len(labels) // recipe.batch
    rates = schedule(optimizer, recipe, recipe.epochs * full)
    losses, seconds, tests = [], [], []
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        torch.manual_seed(key(cell.seed, epoch))
        generator = torch.Generator().manual_seed(key(cell.seed, epoch))
        order = torch.randperm(len(labels), generator=generator).to(device)
        total = torch.zeros((), device=device)
        for batch in order.split(recipe.batch)[:full]:
            prepared = data.prepared(type(data.train_set[[0]])(images[batch], labels[batch]), True)
            with torch.autocast(device.type, torch.bfloat16):
                pixels = prepared.images.contiguous(memory_format=torch.channels_last)
                loss = nn.functional.cross_entropy(model(pixels), prepared.labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            rates.step()
            total += loss.detach()
        losses.append(total.item() / full)
        seconds.append(time.perf_counter() - start)
        with torch.autocast(device.type, torch.bfloat16):
            tests.append(evaluate(learner, data))
    with torch.autocast(device.type, torch.bfloat16):
        on_training = evaluate(learner, data, train=True)
    return Run(
        model=cell.model,
        scheme=cell.scheme,
        asked=cell.dof,
        seed=cell.seed,
        dof=scheme_of(cell).dof(model),
        total=count_parameters(model),
        file_bytes=0,
        epoch_seconds=seconds,
        train_loss=losses,
        test={name: [each[name] for each in tests] for name in tests[0]},
        train=on_training,
    )


def accuracies(
    out: Path,
    recipe: Recipe,
    root: Path | None,
    device: torch.device,
    minutes: float,
    rows: tuple[tuple[str, str, int | None], ...] = ROWS,
) -> None:
    """Train what is missing in ``out`` for so many minutes, and write the table of all that is there.

    Raises:
        SystemExit: the folder holds trainings of another recipe.
    """
    start, longest = time.monotonic(), 0.0
    described, runs = describe(recipe, {}), []
    for cell in cells(rows):
        path = out / "runs" / f"{cell.name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            if record["recipe"] != described:
                raise SystemExit(f"{path} is of another recipe: choose another --out.")
            runs.append(Run(**record["run"]))
            longest = max(longest, sum(runs[-1].epoch_seconds) * 1.3)
            continue
        if time.monotonic() - start + longest > 60 * minutes:
            break
        begun = time.monotonic()
        runs.append(train(cell, recipe, root, device))
        longest = max(longest, time.monotonic() - begun)
        record = {"recipe": described, "run": asdict(runs[-1]), "provenance": provenance()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1))
        print(cell.name, runs[-1].score, f"{time.monotonic() - begun:.0f} s", flush=True)
    if runs:
        seeds = len({run.seed for run in runs})
        title = (
            f"{recipe.data}, {recipe.epochs} epochs, bfloat16, up to {seeds} seeds, {device.type}"
        )
        result = summarise(runs, title, MEASURES)
        with atomic_write(out / "table.md") as temporary:
            temporary.write_text(result.markdown())
