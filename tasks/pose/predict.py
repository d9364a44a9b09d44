"""The joints of people in one's own pictures, found by a trained model."""

import json
from collections.abc import Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lincon.shapes import Float, UInt8
from lincon.tasks.experiments.data.pictures import read_picture
from lincon.tasks.experiments.data.sets import standardised
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.trained.predicting import check_outputs, load_trained, mark
from lincon.tasks.pose.data.photos import crop
from lincon.tasks.pose.drawing import skeleton_on
from lincon.tasks.pose.learner import find
from lincon.tasks.pose.models.cascade import Cascade
from lincon.tasks.pose.skeleton import JOINTS

Box = tuple[float, float, float]
"""Centre x, centre y and side of the square around a person, in pixels of the upright picture."""


def predict(
    images: Sequence[Path], folder: Path, out: Path, box: Box | None = None, *, flip: bool = False
) -> list[tuple[Path, Path]]:
    """Find the joints of the person in each picture; return the paths of a drawing and a JSON file.

    Args:
        images: files that PIL reads.
        folder: of a training, with its model.
        out: folder for `<name>.png`, the picture with the skeleton on it, and `<name>.json`. The
            latter holds, for every joint that the model looks for, x and y in pixels, (0, 0) the
            centre of the top left one of the upright picture, and the height of its peak (about 1 where the model is
            sure).
        box: where the person is; by default the middle of the picture, as large as its longer side.
        flip: average with the prediction for the mirror image.

    Raises:
        LinconError: a picture that cannot be read, two of one name, a folder without a trained
            model of poses, or a file in ``out`` that was not written for the same picture.
    """
    model, size = load_trained(folder, Cascade, "pose", images)
    boxes = [around(path) if box is None else box for path in images]
    pictures = torch.stack(
        [
            crop(path, (x, y), side, size, upright=True)
            for path, (x, y, side) in zip(images, boxes, strict=True)
        ]
    )
    files = {path: (out / f"{path.stem}.png", out / f"{path.stem}.json") for path in images}
    check_outputs("pose", files)
    points, scores = seen(model, pictures, flip)
    for path, (x, y, side), joints, peaks in zip(images, boxes, points, scores, strict=True):
        in_picture = (joints - (size - 1) / 2) * (side / size) + torch.tensor([x, y])
        _write(path, files[path], in_picture, peaks, (x, y, side))
    return list(files.values())


@torch.inference_mode()
def seen(
    model: Cascade, pictures: UInt8[Tensor, "n 3 size size"], flip: bool
) -> tuple[Float[Tensor, "n 16 2"], Float[Tensor, "n 16"]]:
    """Points, pixels, and scores of the joints in pictures."""
    return find(model, standardised(pictures.float() / 255), flip=flip)


def around(path: Path) -> Box:
    """The square around a whole picture."""
    width, height = read_picture(path).size
    return (width - 1) / 2, (height - 1) / 2, max(width, height)


def _write(path: Path, files: tuple[Path, Path], points: Tensor, scores: Tensor, box: Box) -> None:
    joints: dict[str, Any] = {
        name: {"x": round(x, 2), "y": round(y, 2), "score": round(score, 4)}
        for name, (x, y), score in zip(JOINTS, points.tolist(), scores.tolist(), strict=True)
        if isfinite(x)
    }
    drawing, numbers = files
    own_mark = mark("pose", path)
    picture = skeleton_on(read_picture(path), points, scores.clamp(0, 1))
    buffer = BytesIO()
    picture.save(buffer, "png")
    write_output(drawing, buffer.getvalue(), own_mark)
    content = json.dumps({"image": path.name, "box": box, "joints": joints})
    write_output(numbers, content, own_mark)
