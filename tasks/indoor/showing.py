"""Pictures of depth and normals, the true ones and those that trained models predict."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib import colormaps
from torch import Tensor

from lincon.figure import Figure
from lincon.shapes import Float, UInt8
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.scenes import Scenes
from lincon.tasks.indoor.data.writing import colours

ROOMS = 6


def coloured(
    depth: Float[Tensor, "height width"], near: float, far: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Depth in metres as colours: near is light; black where not known."""
    share = ((depth - near) / max(far - near, 1e-6)).clamp(0, 1).nan_to_num(1).cpu().numpy()
    light = (255 * colormaps["magma_r"](share)[..., :3]).round().astype(np.uint8)
    return np.where(depth.isnan().cpu().numpy()[..., None], 0, light)


def painted(
    normals: Float[Tensor, "3 height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Normals as colours, as 2D-3D-S stores them; grey where not known."""
    return rearrange(colours(normals.numpy(force=True)), "xyz height width -> height width xyz")


@torch.inference_mode()
def show(models: Mapping[str, Any], data: Scenes) -> bytes:
    """The first rooms of the test set as a PNG: images, true and predicted depth and normals."""
    batch: Batch = data.test_set[list(range(min(ROOMS, len(data.test_set))))]
    inputs = data.prepared(batch, training=False).images
    depths, normals = {"true depth": batch.depth}, {"true normals": batch.normals}
    for name, model in models.items():
        model_depths, model_normals = model.eval()(inputs)
        depths[f"{name}\ndepth"] = model_depths[:, -1]
        normals[f"{name}\nnormals"] = model_normals[:, -1]
    known = batch.depth[~batch.depth.isnan()]
    near, far = float(known.min()), float(known.quantile(0.99))
    images = rearrange(batch.images, "n rgb height width -> n height width rgb")
    rows = {"image": list(images.numpy())}
    for name, views in depths.items():
        rows[name] = [coloured(view, near, far) for view in views]
    for name, views in normals.items():
        rows[name] = [painted(view) for view in views]
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
    return figure.png()
