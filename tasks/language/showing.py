"""How surprised models are by the bytes of a passage, as a picture."""

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy

from lincon.tasks.experiments.sweeps.figures import png
from lincon.tasks.language.data.text import Text

SHOWN = 72
"""Bytes of the passage: the last ones of the first test window."""


@torch.inference_mode()
def show(models: Mapping[str, Any], data: Text) -> bytes:
    """A passage of the test part as a PNG: the bits of each byte by model, 8 and more are dark."""
    context, following = data.test_set[[0]]
    rows = []
    for model in models.values():
        logits = model.eval()(context)[0]
        rows.append(cross_entropy(logits, following[0], reduction="none")[-SHOWN:] / log(2))
    letters = bytes(following[0, -SHOWN:].tolist()).decode("latin-1")
    return _picture(torch.stack(rows).numpy(), list(models), letters)


def _picture(bits: np.ndarray, names: list[str], letters: str) -> bytes:
    size = (0.17 * len(letters) + 2.5, 0.3 * len(names) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(bits, vmin=0, vmax=8, cmap="OrRd", aspect="auto")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(letters)), [each if each.isprintable() else "·" for each in letters])
    axes.tick_params(length=0)
    axes.set_title("bits that each byte takes: white 0, dark 8 or more", fontsize=10)
    return png(figure)
