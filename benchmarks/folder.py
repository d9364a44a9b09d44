"""Where results are kept."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def new_folder(results: Path, name: str) -> Path:
    """A folder of that name, or with a letter after it: results are added, never edited."""
    folder = results / name
    while folder.exists():
        folder = folder.with_name(folder.name + "b")
    folder.mkdir(parents=True)
    return folder
