"""Pictures of the joints that trained models find: a row a model, a column a person."""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from lincon.figure import Figure
from lincon.shapes import Float, UInt8
from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.drawing import UNSURE, skeleton_on
from lincon.tasks.pose.learner import find

COLUMNS = 8
TILE = 256  # pixels that a picture is enlarged to
KEY = (
    "blue: the person's left, red: right; hollow joints with dashed bones have a score below "
    f"{UNSURE:g}"
)


@torch.inference_mode()
def show(models: Mapping[str, Any], data: People) -> bytes:
    """The first people of the test set as a PNG: with true joints, and with each model's."""
    batch = data.test_set[list(range(min(COLUMNS, len(data.test_set))))]
    people = data.prepared(batch, training=False)
    truth = people.joints[:, 0].masked_fill(~people.known[:, 0].unsqueeze(-1), torch.nan)
    rows = {"true": (truth, torch.ones(truth.shape[:2]))}
    for name, model in models.items():
        rows[name] = find(model.eval(), people.images)
    figure = Figure(figsize=(1.6 * len(batch.images) + 1.2, 1.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(batch.images), squeeze=False)
    for line, (name, found) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axes, image, points, scores in zip(line, batch.images, *found, strict=True):
            axes.imshow(_drawn(image, points, scores, data.size))
            axes.set(xticks=[], yticks=[])
    figure.supxlabel(KEY, fontsize=8)
    return figure.png()


def _drawn(
    image: UInt8[Tensor, "3 height width"],
    joints: Float[Tensor, "16 2"],
    scores: Float[Tensor, " 16"],
    size: int,
) -> Image.Image:
    """A picture, enlarged, with a skeleton on it."""
    pixels = rearrange(image, "rgb height width -> height width rgb").numpy()
    large = Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST)
    return skeleton_on(large, (joints + 0.5) * (TILE / size) - 0.5, scores)
