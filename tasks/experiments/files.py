"""Names of the files in the folders of trainings and experiments, and where folders may be."""

from pathlib import Path

from lincon.errors import LinconError

SAVED = "model.safetensors"
RECORD = "training.json"

RESULTS = "results.json"
FILES = "table.md", RESULTS, "picture.png", "picture.svg"
"""What every experiment writes."""

PREDICTIONS = "predictions.png"
"""What an experiment of a task that draws its predictions writes besides."""


def check_folder(out: Path) -> Path:
    """``out``, unless a file is in its place, or in that of a folder around it."""
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise LinconError(f"--out is {out}, but {place} is a file: give a folder.")
    return out
