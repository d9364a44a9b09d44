"""Cells of a long benchmark: each is kept as it ends, so that a script that was cut goes on."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lincon import LinconError
from lincon.tasks.experiments.output import write_output
from lincon.tasks.experiments.sweeps.provenance import provenance

Values = dict[str, Any]


class Cells:
    """The cells in a folder, each a JSON file of its own.

    Args:
        folder: of the benchmark; the cells lie in ``folder/cells``.
        setting: what all cells have in common, plain JSON. Cells of another are refused.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any]) -> None:
        self.folder, self.setting = folder / "cells", json.loads(json.dumps(dict(setting)))

    def get(self, name: str) -> Values | None:
        """The values of a cell, or None if it has not ended.

        Raises:
            LinconError: it is damaged, or of another setting.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            kept = json.loads(path.read_text())
            setting, values = kept["setting"], dict(kept["values"])
        except (ValueError, KeyError, TypeError):
            raise LinconError(f"{path} is damaged: delete it, and call again.") from None
        if setting != self.setting:
            raise LinconError(f"{path} is of another setting: give another --out.")
        return values

    def of(self, name: str, make: Callable[[], Values]) -> Values:
        """The values of a cell, made and kept if it has not ended."""
        found = self.get(name)
        if found is not None:
            return found
        start = time.process_time()
        values = {**make(), "cpu_seconds": time.process_time() - start}
        kept = {"setting": self.setting, "values": values, **provenance()}
        write_output(self._path(name), json.dumps(kept, indent=1))
        print(f"{name}: {values['cpu_seconds']:.0f} s", flush=True)
        return values

    def _path(self, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
        return self.folder / f"{safe}.json"
