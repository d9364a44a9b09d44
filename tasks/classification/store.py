"""The finished runs of a comparison, one JSON file each, so that an interrupted comparison continues."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lincon import LinconError
from lincon.tasks.classification.provenance import provenance
from lincon.tasks.classification.training import Recipe, Run
from lincon.tasks.classification.writing import write_whole


class Store:
    """Runs of one recipe, in ``folder`` as `<scheme>-<seed>.json`, each with the recipe and its provenance.

    Raises:
        LinconError: the folder holds a run of another recipe (named with what differs), or a damaged file.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, asdict(recipe)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.json")):
            self._check(_read(path)["recipe"])

    def get(self, scheme: str, seed: int) -> Run | None:
        """The run as it was put there, or None."""
        path = self._path(scheme, seed)
        return Run(**_read(path)["run"]) if path.exists() else None

    def put(self, run: Run) -> None:
        """Keep a finished run."""
        record = {"recipe": self.recipe, "run": asdict(run), "provenance": provenance()}
        write_whole(self._path(run.scheme, run.seed), json.dumps(record, indent=1))

    def _path(self, scheme: str, seed: int) -> Path:
        return self.folder / f"{scheme}-{seed}.json"

    def _check(self, there: dict[str, Any]) -> None:
        both = {key: (json.dumps(there.get(key)), json.dumps(here)) for key, here in self.recipe.items()}
        differing = [f"{key} is {old} there and {new} here" for key, (old, new) in both.items() if old != new]
        if differing:
            raise LinconError(
                f"{self.folder} holds runs made with other options ({', '.join(differing)}): "
                "choose another folder, or delete this one."
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        Run(**record["run"])
        return {"recipe": dict(record["recipe"]), **record}
    except (ValueError, TypeError, KeyError):
        raise LinconError(f"{path} is not a finished run: delete it, and call again.") from None
