"""Checkpoints of trainings: written whole or not at all, and read without unpickling."""

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
    """Writes a checkpoint under a temporary name, syncs it, and renames it.

    After an interruption, or on a full disk, the checkpoint before is as it was.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        write_output(Path(path), buffer.getvalue())


def after_every_epoch(path: Path) -> Callback:
    """A callback that writes a checkpoint to ``path`` after every epoch, over the one before."""
    return ModelCheckpoint(
        path.parent,
        path.stem,
        save_top_k=1,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )


def read(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint. Raises LinconError for a damaged one."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception:  # torch raises whatever the bytes lead it to
        raise LinconError(f"{path} is damaged: delete its folder, and train again.") from None
