"""Checkpoints of trainings: written whole or not at all, read without unpickling."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lincon import LinconError
from lincon.tasks.experiments.output import write_output


class AtomicFiles(TorchCheckpointIO):
    """Under a temporary name, synced, renamed: an interruption or a full disk leaves the one before as it was."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        write_output(Path(path), buffer.getvalue())


def after_every_epoch(place: Path) -> Callback:
    """Leaves a checkpoint at ``place`` after every epoch, in the place of the one before."""
    return ModelCheckpoint(
        place.parent,
        place.stem,
        save_top_k=1,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )


def read(place: Path) -> dict[str, Any]:
    """A checkpoint's contents. Raises LinconError for one that is damaged."""
    try:
        return dict(torch.load(place, map_location="cpu", weights_only=True))
    except Exception:  # torch raises whatever the bytes lead it to
        raise LinconError(f"{place} is damaged: delete its folder, and train anew.") from None
