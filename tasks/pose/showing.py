"""Pictures of what trained models see: a row a model, a column a person."""

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from lincon.tasks.experiments.sweeps.curves import png
from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.drawing import skeleton_on
from lincon.tasks.pose.learner import find

COLUMNS = 8
TILE = 256  # pixels that a picture is enlarged to


@torch.inference_mode()
def show(models: Mapping[str, Any], data: People) -> bytes:
    """The first people of the test set as a PNG: with their true joints, and with those that each model finds."""
    batch = data.test_set[list(range(min(COLUMNS, len(data.test_set))))]
    seen = data.prepared(batch, training=False)
    truth = seen.joints[:, 0].masked_fill(~seen.known[:, 0].unsqueeze(-1), torch.nan)
    rows = {"true": truth} | {
        name: find(model.eval(), seen.images)[0] for name, model in models.items()
    }
    figure = Figure(figsize=(1.6 * len(batch.images) + 1.2, 1.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(batch.images), squeeze=False)
    for line, (name, points) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axes, image, joints in zip(line, batch.images, points, strict=True):
            axes.imshow(_drawn(image, joints, data.size))
            axes.set(xticks=[], yticks=[])
    return png(figure)


def _drawn(image: torch.Tensor, joints: torch.Tensor, size: int) -> Image.Image:
    """A picture of (3, size, size), uint8, enlarged, with a skeleton (16, 2) on it."""
    large = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
        (TILE, TILE), Image.Resampling.NEAREST
    )
    return skeleton_on(large, (joints + 0.5) * (TILE / size) - 0.5)
