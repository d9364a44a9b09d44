"""The finished trainings of an experiment, from which an interrupted one continues."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lincon import LinconError
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps.provenance import provenance
from lincon.tasks.experiments.training.recipe import Cell, differences
from lincon.tasks.experiments.training.record import SAVED
from lincon.tasks.experiments.training.run import Run


class Store:
    """The runs of one recipe in a folder: for each cell a folder with `run.json` and the model.

    Args:
        folder: made when a run is kept.
        recipe: what all runs have in common, as plain JSON.

    Raises:
        LinconError: the folder holds a run of another recipe, or a damaged file; the message says
            what differs.

    Beside each run stand the fingerprints of what it was made of.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self.folder, self.recipe = folder, dict(recipe)
        for path in sorted(folder.glob("*/run.json")):
            self._check(_read(path)["recipe"])

    def get(self, cell: Cell) -> Run | None:
        """The run of a cell, or None if it has not ended."""
        path = self.place(cell) / "run.json"
        return Run(**_read(path)["run"]) if path.exists() else None

    def check(
        self,
        cell: Cell,
        fingerprints: Mapping[str, str],
        settings: Mapping[str, float] | None = None,
    ) -> None:
        """Raise LinconError if the finished run of a cell was made of anything else.

        ``settings`` of the recipe are those of this cell alone; None where they are not yet known.
        """
        path = self.place(cell) / "run.json"
        if not path.exists():
            return
        record = _read(path)
        changed = differences(record.get("fingerprints", {}), fingerprints)
        if settings is not None:
            changed += differences(record.get("settings", {}), settings)
        if changed:
            raise LinconError(
                f"{path} is of another training, which the same names stood for "
                f"({', '.join(changed)}): undo that change, choose another folder, or delete "
                f"{self.folder}."
            )

    def put(
        self,
        cell: Cell,
        run: Run,
        fingerprints: Mapping[str, str],
        settings: Mapping[str, float] | None = None,
    ) -> None:
        """Keep a finished run, with the fingerprints of what it was made of, and its settings."""
        record = {
            "recipe": self.recipe,
            "fingerprints": dict(fingerprints),
            **({"settings": dict(settings)} if settings else {}),
            "run": asdict(run),
            "provenance": provenance(),
        }
        write_output(self.place(cell) / "run.json", json.dumps(record, indent=1))

    def place(self, cell: Cell) -> Path:
        """The folder of a cell."""
        return self.folder / cell.name

    def model(self, cell: Cell) -> Path:
        """The file of the trained model."""
        return self.place(cell) / SAVED

    def _check(self, recipe: dict[str, Any]) -> None:
        if differing := differences(recipe, self.recipe):
            raise LinconError(
                f"{self.folder} holds runs made with other options ({', '.join(differing)}): "
                "choose another folder, or delete this one."
            )


def _read(path: Path) -> dict[str, Any]:
    """A record that `Store.put` has written."""
    try:
        record = json.loads(path.read_text())
        Run(**record["run"])
        return {**record, "recipe": dict(record["recipe"])}
    except (ValueError, TypeError, KeyError):
        raise LinconError(
            f"{path} is not a finished run: delete its folder, and call again."
        ) from None
