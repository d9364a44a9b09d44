"""The classes of one's own pictures, by a trained model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Float
from lincon.tasks.classification.data.folders import decode
from lincon.tasks.classification.data.images import floats
from lincon.tasks.experiments.training.record import data_set_of, reload


@torch.inference_mode()
def predict(images: Sequence[Path], folder: Path, top: int = 5) -> list[list[tuple[str, float]]]:
    """For each picture the likeliest classes and their probabilities, the likeliest first.

    A picture becomes what the model was trained on: the shorter side is resized, the centre cut
    out; a model of grey images sees the mean of red, green and blue.

    Args:
        images: files that PIL reads.
        folder: of a training, with its model.
        top: how many classes; all, if there are fewer.

    Raises:
        LinconError: a picture that cannot be read; a folder without a trained classifier; one whose
            images were in a unit that no picture has.
    """
    model, cell, _, shape = reload(folder)
    if cell.task != "classification":
        raise LinconError(f"{folder} holds a model of {cell.task}, not of classification.")
    channels, _, size = shape
    known = data_set_of(folder)
    _check(folder, channels, known)
    names = known["classes"]
    pictures = torch.stack([decode(path, size, shorter=known["shorter"]) for path in images])
    seen = _standardised(floats(pictures), channels, known)
    likely, classes = model.eval()(seen).softmax(-1).topk(min(top, len(names)))
    return [
        [(names[index], share) for index, share in zip(each, shares, strict=True)]
        for each, shares in zip(classes.tolist(), likely.tolist(), strict=True)
    ]


def _check(folder: Path, channels: int, known: Mapping[str, Any]) -> None:
    low, high = known["range"]
    if channels not in (1, 3):
        raise LinconError(f"{folder} holds a model of images with {channels} channels, not 1 or 3.")
    if low < 0 or high > 1:
        raise LinconError(
            f"{folder} holds a model of images from {low:g} to {high:g}: nothing says how a "
            "picture becomes one of them. Train on uint8, or on floats from 0 to 1."
        )


def _standardised(
    pictures: Float[Tensor, "n 3 size size"], channels: int, known: Mapping[str, Any]
) -> Float[Tensor, "n channels size size"]:
    if channels == 1:
        pictures = reduce(pictures, "n rgb height width -> n 1 height width", "mean")
    mean, std = (
        rearrange(torch.tensor(known[name]), "channels -> channels 1 1") for name in ("mean", "std")
    )
    return (pictures - mean) / std
