"""Results of a script: JSON with machine, versions and commit, and a table, in `benchmarks/results/<name>-<date>`."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lincon.tasks.experiments.provenance import provenance

RESULTS = Path(__file__).parent / "results"


def keep(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Any) -> Path:
    """Write `results.json` and `table.md` into a folder of their own; results are added, never edited."""
    folder = RESULTS / f"{name}-{time.strftime('%Y-%m-%d')}"
    while folder.exists():
        folder = folder.with_name(folder.name + "b")
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"numbers": numbers, **provenance()}, indent=1))
    lines = [header, [":--"] + ["--:"] * (len(header) - 1), *rows]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    (folder / "table.md").write_text(f"# {title}\n\n{table}\n")
    return folder
