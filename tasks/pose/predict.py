"""The joints of people in one's own pictures, found by a trained model."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
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


MIN_SCORE = 0.1
"""Joints with lower peaks are not drawn."""


class Found(NamedTuple):
    """What was written for a picture, and which joints are not in the drawing, each with the reason."""

    drawing: Path
    numbers: Path
    left_out: dict[str, str]


def predict(
    images: Sequence[Path],
    folder: Path,
    out: Path,
    box: Box | None = None,
    *,
    flip: bool = False,
    min_score: float = MIN_SCORE,
) -> list[Found]:
    """Find the joints of the person in each picture, draw them and write them down.

    A joint whose peak is too low, or which lies outside of the picture, is not drawn.

    Args:
        images: files that PIL reads.
        folder: of a training, with its model.
        out: folder for `<name>.png`, the picture with the skeleton on it, and `<name>.json`. The
            latter holds, for every joint that the model looks for, x and y in pixels, (0, 0) the
            centre of the top left one of the upright picture, the height of its peak (about 1 where
            the model is sure), and whether it is drawn.
        box: where the person is; by default the middle of the picture, as large as its longer side.
        flip: average with the prediction for the mirror image.
        min_score: the lowest peak of a joint that is drawn.

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
    left_out = []
    for path, (x, y, side), joints, peaks in zip(images, boxes, points, scores, strict=True):
        in_picture = (joints - (size - 1) / 2) * (side / size) + torch.tensor([x, y])
        reasons = unsure(in_picture, peaks, read_picture(path).size, min_score)
        _write(path, files[path], in_picture, peaks, (x, y, side), reasons)
        left_out.append(reasons)
    return [Found(*files[path], each) for path, each in zip(images, left_out, strict=True)]


def unsure(
    points: Float[Tensor, "16 2"],
    scores: Float[Tensor, " 16"],
    size: tuple[int, int],
    min_score: float,
) -> dict[str, str]:
    """The joints that are not to be drawn on a picture of ``size`` (width, height), and why."""
    width, height = size
    reasons = {}
    for name, (x, y), score in zip(JOINTS, points.tolist(), scores.tolist(), strict=True):
        if not isfinite(x):
            continue  # the model does not look for it
        why = [f"score {score:.2f}"] if not score >= min_score else []
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            why.append("outside of the picture")
        if why:
            reasons[name] = ", ".join(why)
    return reasons


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


def _write(
    path: Path,
    files: tuple[Path, Path],
    points: Tensor,
    scores: Tensor,
    box: Box,
    left_out: Mapping[str, str],
) -> None:
    joints: dict[str, Any] = {
        name: {
            "x": round(x, 2),
            "y": round(y, 2),
            "score": round(score, 4),
            "drawn": name not in left_out,
        }
        for name, (x, y), score in zip(JOINTS, points.tolist(), scores.tolist(), strict=True)
        if isfinite(x)
    }
    drawing, numbers = files
    own_mark = mark("pose", path)
    hidden = torch.tensor([name in left_out for name in JOINTS])
    shown = points.masked_fill(rearrange(hidden, "joints -> joints 1"), torch.nan)
    picture = skeleton_on(read_picture(path), shown, scores.clamp(0, 1))
    buffer = BytesIO()
    picture.save(buffer, "png")
    write_output(drawing, buffer.getvalue(), own_mark)
    content = json.dumps({"image": path.name, "box": box, "joints": joints})
    write_output(numbers, content, own_mark)
