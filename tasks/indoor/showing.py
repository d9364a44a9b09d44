"""Pictures of depth and normals, the true ones and those that trained models predict."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from torch import Tensor

from lincon.figure import Figure
from lincon.shapes import Float, UInt8
from lincon.tasks.indoor.data.batch import Batch
from lincon.tasks.indoor.data.scenes import Scenes
from lincon.tasks.indoor.data.writing import colours

ROOMS = 6
_DEPTHS = "magma_r"
_UNKNOWN = 128  # grey, which the map does not have


def coloured(
    depth: Float[Tensor, "height width"], near: float, far: float
) -> UInt8[np.ndarray, "height width 3"]:
    """Depth in metres as colours: near is light; grey where not known."""
    share = ((depth - near) / max(far - near, 1e-6)).clamp(0, 1).nan_to_num(1).cpu().numpy()
    light = (255 * colormaps[_DEPTHS](share)[..., :3]).round().astype(np.uint8)
    return np.where(depth.isnan().cpu().numpy()[..., None], _UNKNOWN, light).astype(np.uint8)


def painted(
    normals: Float[Tensor, "3 height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Normals as colours, as 2D-3D-S stores them; grey where not known."""
    return rearrange(colours(normals.numpy(force=True)), "xyz height width -> height width xyz")


def depth_view(depth: Float[Tensor, "height width"]) -> bytes:
    """Depth as a PNG, with the metres at a bar of its colours."""
    near, far = float(depth.min()), float(depth.max())
    figure, picture, key = _beside(coloured(depth, near, far))
    figure.colorbar(_scale(near, far), cax=key, label="depth (m)")
    picture.axis("off")
    return figure.png()


def normals_view(normals: Float[Tensor, "3 height width"]) -> bytes:
    """Normals as a PNG, with a key that says which colour faces where."""
    figure, picture, key = _beside(painted(normals), wide=True)
    draw_key(key)
    picture.axis("off")
    return figure.png()


def draw_key(axes: Axes) -> None:
    """A ball as normals are painted: each place has the colour of what faces there."""
    side = torch.linspace(-1, 1, 129)
    down, right = torch.meshgrid(side, side, indexing="ij")
    towards = (1 - right.square() - down.square()).sqrt()
    ball = torch.stack([right, down, towards])
    outside = rearrange(towards.isnan(), "height width -> height width 1").numpy()
    axes.imshow(np.where(outside, 255, painted(ball)), extent=(-1, 1, 1, -1))
    for x, y, words in ((-1.1, 0, "left"), (1.1, 0, "right"), (0, -1.25, "up"), (0, 1.25, "down")):
        aligned = {-1.1: "right", 1.1: "left"}.get(x, "center")
        axes.text(x, y, words, ha=aligned, va="center", fontsize=7)
    axes.text(0, 0, "to the\ncamera", ha="center", va="center", fontsize=6)
    axes.set(xlim=(-2.1, 2.1), ylim=(1.6, -1.6), aspect="equal")
    axes.set_title("surfaces that face", fontsize=7)
    axes.axis("off")


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
    figure, keys = _grid(rows)
    first, last = keys[1], keys[len(depths)]
    bar = figure.colorbar(_scale(near, far), cax=_spanning(figure, first, last), extend="max")
    bar.set_label("depth (m)", fontsize=8)
    draw_key(keys[1 + len(depths)])
    return figure.png()


def _scale(near: float, far: float) -> ScalarMappable:
    return ScalarMappable(Normalize(near, max(far, near + 1e-6)), _DEPTHS)


def _beside(
    pixels: UInt8[np.ndarray, "height width 3"], wide: bool = False
) -> tuple[Figure, Axes, Axes]:
    """A picture about as large as a page is wide, and a narrow place beside it."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    inches = max(1.0, 5 * width / longer), max(1.6, 5 * height / longer)
    place = 1.5 if wide else 0.15
    figure = Figure(figsize=(inches[0] + place + 0.9, inches[1] + 0.3), layout="constrained")
    picture, key = figure.subplots(1, 2, width_ratios=(inches[0], place))
    picture.imshow(pixels, interpolation="nearest")
    return figure, picture, key


def _spanning(figure: Figure, first: Axes, last: Axes) -> Axes:
    """One narrow place for a bar, from the row of ``first`` to that of ``last``, in their stead."""
    spec = first.get_subplotspec()
    below = last.get_subplotspec()
    assert spec is not None and below is not None
    grid = spec.get_gridspec()
    cell = grid[spec.rowspan.start : below.rowspan.stop, -1]
    return figure.add_subplot(cell.subgridspec(1, 5)[0, 0])


def _grid(rows: Mapping[str, list[np.ndarray]]) -> tuple[Figure, list[Axes]]:
    """Pictures in rows under their names, and at the end of each row an empty place."""
    columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(1.3 * (columns + 1) + 1.4, 1.3 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns + 1, squeeze=False)
    for line, (name, pictures) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axes, picture in zip(line[:-1], pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
        line[-1].axis("off")
    return figure, list(grid[:, -1])
