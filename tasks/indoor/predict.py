"""Depth and normals of one's own pictures, predicted by a trained model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from lincon.shapes import Float
from lincon.tasks.experiments.data.pictures import read_picture
from lincon.tasks.experiments.data.sets import standardised
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.trained.predicting import check_outputs, load_trained, mark
from lincon.tasks.indoor.data.writing import png, steps
from lincon.tasks.indoor.models.cascade import Cascade
from lincon.tasks.indoor.showing import depth_view, normals_view, painted

KINDS = "depth", "depth_view", "normals", "normals_view"
"""What is written for a picture; the file's name ends so."""


def predict(images: Sequence[Path], folder: Path, out: Path) -> list[list[Path]]:
    """Predict depth and normals of each picture; return the paths of the files written for each.

    Depth and normals have the picture's own height and width; views are for people. A model sees
    the picture reduced so that its shorter side is as long as in training.

    Args:
        images: files that PIL reads.
        folder: of a training, with its model.
        out: folder for `<name>_depth.png` (16 bits, 1/512 m, as in 2D-3D-S),
            `<name>_depth_view.png` (with metres at a bar of colours), `<name>_normals.png` (8 bits,
            value / 127.5 - 1) and `<name>_normals_view.png` (with a key of directions).

    Raises:
        LinconError: a picture that cannot be read, two of one name, a folder without a trained
            model of scenes, or a file in ``out`` that was not written for the same picture.
    """
    model, size = load_trained(folder, Cascade, "indoor", images)
    pictures = [read_picture(path) for path in images]
    files = {path: [out / f"{path.stem}_{kind}.png" for kind in KINDS] for path in images}
    check_outputs("indoor", files)
    for path, picture in zip(images, pictures, strict=True):
        _write(files[path], mark("indoor", path), *seen(model, picture, size))
    return list(files.values())


@torch.inference_mode()
def seen(
    model: Cascade, picture: Image.Image, size: int
) -> tuple[Float[Tensor, "height width"], Float[Tensor, "3 height width"]]:
    """Depth, metres, and normals of a picture."""
    scale = size / min(picture.size)
    width, height = (
        max(1, round(side * scale / model.multiple)) * model.multiple for side in picture.size
    )
    reduced = np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
    pixels = rearrange(torch.from_numpy(reduced), "height width rgb -> 1 rgb height width")
    depths, directions = model(standardised(pixels.float() / 255))
    full = (picture.height, picture.width)
    depth = interpolate(depths[:, -1:], full, mode="bilinear", align_corners=False)
    normals = interpolate(directions[:, -1], full, mode="bilinear", align_corners=False)
    return depth[0, 0], normalize(normals[0], dim=0)


def _write(files: Sequence[Path], own_mark: str, depth: Tensor, normals: Tensor) -> None:
    """Write the files of one picture, in the order of `KINDS`."""
    contents = (
        png(steps(depth.numpy())),
        depth_view(depth),
        png(painted(normals)),
        normals_view(normals),
    )
    for file, content in zip(files, contents, strict=True):
        write_output(file, content, own_mark)
