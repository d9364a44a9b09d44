"""A slim ResNet-18 against the whole one: the forward of 64 x 3 x 32 x 32 images, in turn.

The slim one has 60 % of the multiply-adds. The knapsack chooses its channels by Taylor importance,
on random images: the choice does not matter to the time. The constrained model is merged before it
is timed, as it is before it is shipped.
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
    whole = merged_copy(model)
    assert isinstance(model, ResNet) and isinstance(whole, ResNet)
    dof = sum(constraint.dof for constraint in lincon.constraints(model))

    worth = importance(model, [(images, labels)])
    slim(model, within(whole, worth, costs(whole, images), images, SHARE))
    narrow = merged_copy(model)
    slim_dof = sum(constraint.dof for constraint in lincon.constraints(model))
    with torch.inference_mode():
        whole_seconds, slim_seconds = compare([lambda: whole(images), lambda: narrow(images)], 20)

    benchmark.group = "forward of a slim ResNet-18 / the whole one, in turn"
    benchmark.name = f"{'constrained' if mode == 'model' else mode}: the whole one"
    benchmark.extra_info["multiply-adds"] = round(macs(narrow, images) / macs(whole, images), 3)
    benchmark.extra_info["slim / whole"] = round(slim_seconds / whole_seconds, 3)
    if dof:
        benchmark.extra_info.update({"dof": dof, "dof of the slim one": slim_dof})
    with torch.inference_mode():
        benchmark.pedantic(lambda: whole(images), rounds=5)
