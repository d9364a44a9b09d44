"""Depth and normals of pictures of one's own, found by a trained model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from lincon import LinconError
from lincon.tasks.experiments.data.pictures import opened
from lincon.tasks.experiments.data.sets import standardised
from lincon.tasks.experiments.trained.predicting import trained
from lincon.tasks.experiments.writing import write_whole
from lincon.tasks.indoor.data.writing import png, steps
from lincon.tasks.indoor.models.cascade import Cascade
from lincon.tasks.indoor.showing import coloured, painted


def predict(images: Sequence[Path], folder: Path, out: Path) -> list[list[Path]]:
    """Find depth and normals of each picture; the files written for each, of the picture's own height and width.

    A model sees the picture reduced so that its shorter side is what it was trained on.

    Args:
        images: files that PIL reads.
        folder: of a training, with its model.
        out: folder for `<name>_depth.png` (16 bits, 1/512 m, as in 2D-3D-S),
            `<name>_depth_view.png` (near is light) and `<name>_normals.png` (8 bits, value / 127.5
            - 1).

    Raises:
        LinconError: a picture that cannot be read, two of one name, or a folder without a trained
            model of scenes.
    """
    model, size = trained(folder, Cascade, "indoor", images)
    pictures = [_read(path) for path in images]
    return [
        _write(path.stem, out, *seen(model, picture, size))
        for path, picture in zip(images, pictures, strict=True)
    ]


def _read(path: Path) -> Image.Image:
    try:
        with opened(path) as file:
            return file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LinconError(f"{path} cannot be read as a picture: {error}.") from None


@torch.inference_mode()
def seen(model: Cascade, picture: Image.Image, size: int) -> tuple[Tensor, Tensor]:
    """Depth (height, width), metres, and normals (3, height, width) of a picture."""
    scale = size / min(picture.size)
    width, height = (
        max(1, round(side * scale / model.multiple)) * model.multiple for side in picture.size
    )
    reduced = np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
    images = torch.from_numpy(reduced).permute(2, 0, 1).unsqueeze(0).float() / 255
    depth, normals = (of[:, -1:].flatten(0, 1) for of in model(standardised(images)))
    full = (picture.height, picture.width)
    depth = interpolate(depth.unsqueeze(1), full, mode="bilinear", align_corners=False)[0, 0]
    return depth, normalize(
        interpolate(normals, full, mode="bilinear", align_corners=False)[0], dim=0
    )


def _write(name: str, out: Path, depth: Tensor, normals: Tensor) -> list[Path]:
    pictures = {
        f"{name}_depth.png": steps(depth.numpy()),
        f"{name}_depth_view.png": coloured(depth, float(depth.min()), float(depth.max())),
        f"{name}_normals.png": painted(normals),
    }
    for file, pixels in pictures.items():
        write_whole(out / file, png(pixels))
    return [out / file for file in pictures]
