"""A slim ResNet-18 against the whole one: a forward of 64 x 3 x 32 x 32 images, in turn, at 60 % of the multiply-adds.

Channels are chosen by the knapsack of Taylor importance, on random images: which they are does not matter to the time.
The constrained one is merged before it is timed, as it is before it is shipped.
"""

from typing import Any

import pytest
import torch

import lincon
from benchmarks.step import build, compare
from lincon.exporting import merged_copy
from lincon.tasks.classification.compression.channels import costs, importance, macs, slim
from lincon.tasks.classification.compression.knapsack import SHARE, within
from lincon.tasks.classification.models import ResNet


@pytest.mark.parametrize("mode", ["vanilla", "model"])
def test_forward(benchmark: Any, mode: str) -> None:
    images, labels = torch.randn(64, 3, 32, 32), torch.randint(0, 100, (64,))
    model = build(18, mode, 0.5)
    assert isinstance(model, ResNet)
    whole = merged_copy(model)
    before = sum(constraint.dof for constraint in lincon.constraints(model))
    worth, cost = importance(model, [(images, labels)]), costs(whole, images)  # type: ignore[arg-type]
    slim(model, within(whole, worth, cost, images, SHARE))  # type: ignore[arg-type]
    narrow = merged_copy(model)
    with torch.inference_mode():
        seconds = compare([lambda: whole(images), lambda: narrow(images)], 20)
    after = sum(constraint.dof for constraint in lincon.constraints(model))
    benchmark.group = "forward of a slim ResNet-18 / the whole one, in turn"
    benchmark.name = f"{'constrained' if mode == 'model' else mode}: the whole one"
    benchmark.extra_info["multiply-adds"] = round(macs(narrow, images) / macs(whole, images), 3)
    benchmark.extra_info["slim / whole"] = round(seconds[1] / seconds[0], 3)
    if before:
        benchmark.extra_info.update({"dof": before, "dof of the slim one": after})
    with torch.inference_mode():
        benchmark.pedantic(lambda: whole(images), rounds=5)
