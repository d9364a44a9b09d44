"""Pictures of depth and normals, and of what trained models make of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from lincon.tasks.experiments.sweeps.curves import png
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.scenes import Scenes
from lincon.tasks.indoor.data.writing import colours

ROOMS = 6


def coloured(depth: Tensor, near: float, far: float) -> np.ndarray:
    """Depth (height, width) in metres as colours (height, width, 3), uint8: near is light; black where not known."""
    share = ((depth - near) / max(far - near, 1e-6)).clamp(0, 1).nan_to_num(1).cpu().numpy()
    light = (255 * colormaps["magma_r"](share)[..., :3]).round().astype(np.uint8)
    return np.where(depth.isnan().cpu().numpy()[..., None], 0, light)


def painted(normals: Tensor) -> np.ndarray:
    """Normals (3, height, width) as colours (height, width, 3), uint8, as 2D-3D-S stores them; grey where not known."""
    return colours(normals.numpy(force=True)).transpose(1, 2, 0)


@torch.inference_mode()
def show(models: Mapping[str, Any], data: Scenes) -> bytes:
    """The first rooms of the test set as a PNG: image, true depth and normals, and those of each model."""
    batch: Batch = data.test_set[list(range(min(ROOMS, len(data.test_set))))]
    seen = data.prepared(batch, training=False).images
    found = {name: [of[:, -1] for of in model.eval()(seen)] for name, model in models.items()}
    known = batch.depth[~batch.depth.isnan()]
    near, far = float(known.min()), float(known.quantile(0.99))
    rows: dict[str, list[np.ndarray]] = {
        "image": [image.permute(1, 2, 0).numpy() for image in batch.images],
        "true depth": [coloured(depth, near, far) for depth in batch.depth],
    }
    rows |= {
        f"{name}\ndepth": [coloured(each, near, far) for each in depth]
        for name, (depth, _) in found.items()
    }
    rows["true normals"] = [painted(each) for each in batch.normals]
    rows |= {
        f"{name}\nnormals": [painted(each) for each in normals]
        for name, (_, normals) in found.items()
    }
    return _grid(rows, f"depth from {near:.1f} m (light) to {far:.1f} m (dark)")


def _grid(rows: Mapping[str, list[np.ndarray]], title: str) -> bytes:
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(1.3 * columns + 1.4, 1.3 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=10)
    return png(figure)
