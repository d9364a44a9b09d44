"""Saving a trained model, constrained or not, so that sizes can be compared."""

import os
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

import lincon


def save(model: nn.Module, path: Path) -> int:
    """Write a model (unconstrained ones as a plain safetensors file of their state); its size in bytes."""
    if lincon.constraints(model):
        return lincon.save(model, path)
    save_file(model.state_dict(), path)
    return os.path.getsize(path)
