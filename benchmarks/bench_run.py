"""What a training takes beside its steps: loading, augmentation, tests, Lightning's loop, start-up.

One training of ResNet-20 on Fashion-MNIST by `training.train`, 24,000 images and 8 epochs, in seconds
of the process, with one thread. Its parts are measured again without Lightning, for one epoch; what is
left is Lightning's loop, the start-up, and the files. The shorter a training, the larger the share of
what happens once.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lincon.tasks.classification.data.idx import PACKAGED
from lincon.tasks.classification.learner import Classifier
from lincon.tasks.experiments.training.learner import evaluate
from lincon.tasks.experiments.training.models import build
from lincon.tasks.experiments.training.recipe import Cell, Recipe, Setup, open_data
from lincon.tasks.experiments.training.training import train

RECIPE = Recipe(data="fashion-mnist", epochs=8, images=24_000)
CELL = Cell("resnet20:stride=2", "rpg", 0.01, 0)


@pytest.mark.skipif(not PACKAGED.exists(), reason="Debian's package of Fashion-MNIST is missing")
def test_shares_of_a_training(benchmark: Any, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    benchmark.group = "a training of 8 epochs of 24,000 images, one thread"
    benchmark.name = "seconds of the process"
    whole = _seconds(lambda: train(RECIPE, CELL, tmp_path / "run", Setup(quiet=True)))
    parts = _parts()
    for name, seconds in parts.items():
        benchmark.extra_info[f"{name} / training"] = round(seconds / whole, 3)
    rest = whole - sum(parts.values())
    benchmark.extra_info["loop, start-up, files / training"] = round(rest / whole, 3)
    benchmark.extra_info["all but the steps / training"] = round(1 - parts["steps"] / whole, 3)
    benchmark.extra_info["training"] = round(whole, 2)
    benchmark.pedantic(lambda: None, rounds=1)


def _parts() -> dict[str, float]:
    """Seconds of what a training does, without Lightning."""
    data, model = open_data(RECIPE, 0), build(CELL, open_data(RECIPE, 0).shape)
    optimizer = torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    batches: list[Any] = []
    loading = _seconds(lambda: batches.extend(data.train_dataloader()))
    prepared: list[Any] = []
    augmenting = _seconds(lambda: prepared.extend(data.prepared(each, True) for each in batches))

    def steps() -> None:
        for images, labels in prepared:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

    learner = Classifier(model, data, RECIPE)
    epochs = RECIPE.epochs
    return {
        "steps": epochs * _seconds(steps),
        "loading": epochs * loading,
        "augmentation": epochs * augmenting,
        "tests": epochs * _seconds(lambda: evaluate(learner, data)),
        "measuring the training part": _seconds(lambda: evaluate(learner, data, train=True)),
    }


def _seconds(work: Callable[[], Any]) -> float:
    """Seconds of this process that some work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start
