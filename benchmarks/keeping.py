"""Results of a script: JSON with machine, versions and commit, and a table, in `benchmarks/results/<name>-<date>`."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.folder import RESULTS, new_folder
from lincon.tasks.experiments.sweeps.provenance import provenance
from lincon.tasks.experiments.sweeps.report import markdown


def keep(
    name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Any
) -> Path:
    """Write `results.json` and `table.md` into a folder of their own."""
    folder = new_folder(RESULTS, f"{name}-{time.strftime('%Y-%m-%d')}")
    (folder / "results.json").write_text(json.dumps({"numbers": numbers, **provenance()}, indent=1))
    (folder / "table.md").write_text(
        markdown(header, [tuple(map(str, row)) for row in rows], f"# {title}")
    )
    return folder
