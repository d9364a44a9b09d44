"""Results of benchmarks: each run has a folder under `benchmarks/results`, and none is ever edited.

    python -m benchmarks.results benchmarks/results/speed-2026-11-26-a24ce7ff

writes the table and the picture of a folder again from its JSON.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lincon.tasks.experiments.sweeps.provenance import provenance
from lincon.tasks.experiments.sweeps.report import markdown

RESULTS = Path(__file__).parent / "results"
EXPLAINED = ("group", "name", "median", "rounds", "reference")
"""Entries of a row that the table shows in columns, or uses; it shows all others as notes."""

Row = dict[str, Any]
Ratios = dict[str, dict[str, float]]


def new_folder(results: Path, name: str) -> Path:
    """Make a folder of that name, with a letter after it if the name is taken."""
    folder = results / name
    while folder.exists():
        folder = folder.with_name(folder.name + "b")
    folder.mkdir(parents=True)
    return folder


def keep(
    name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Any
) -> Path:
    """Keep what a script measured: numbers, versions, commit, machine as JSON, rows as a table."""
    folder = new_folder(RESULTS, f"{name}-{time.strftime('%Y-%m-%d')}")
    (folder / "results.json").write_text(json.dumps({"numbers": numbers, **provenance()}, indent=1))
    cells = [tuple(map(str, row)) for row in rows]
    (folder / "table.md").write_text(markdown(header, cells, f"# {title}"))
    return folder


def keep_speed(results: Path, kind: str, result: dict[str, Any]) -> None:
    """Keep times: ``result`` has `machine`, `commit` (with its `id`) and `rows`."""
    name = f"{kind}-{time.strftime('%Y-%m-%d')}-{str(result['commit']['id'])[:8]}"
    folder = new_folder(results, name)
    (folder / "results.json").write_text(json.dumps(result, indent=1))
    write_speed(folder)


def write_speed(folder: Path) -> None:
    """Write the table and the picture of times, and print the table."""
    result = json.loads((folder / "results.json").read_text())
    table = speed_table(result)
    (folder / "table.md").write_text(table)
    draw_unpacking(result, folder / "picture.png")
    print(f"\n{table}\nwritten to {folder}")


def ratios(rows: list[Row]) -> Ratios:
    """Group -> name -> median time, as a multiple of the row's reference or of its group's first."""
    groups: Ratios = defaultdict(dict)
    first: dict[str, float] = {}
    for row in rows:
        reference = row.get("reference", first.setdefault(row["group"], row["median"]))
        groups[row["group"]][row["name"]] = row["median"] / reference
    return groups


def speed_table(result: dict[str, Any]) -> str:
    """A table a group, under a line that says where and how the times were taken."""
    machine, commit = result["machine"], result["commit"]
    changes = " (with changes)" if commit.get("dirty") else ""
    lines = [
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"commit {str(commit['id'])[:8]}{changes}. Medians. The multiple is of copying the weights "
        "once, timed before every round, or else of the first row of the group.",
        "",
    ]
    for group, relative in ratios(result["rows"]).items():
        lines += [f"**{group}**", "", "| what | milliseconds | multiple | |", "|:--|--:|--:|:--|"]
        for row in result["rows"]:
            if row["group"] == group:
                lines.append(_speed_line(row, relative[row["name"]]))
        lines.append("")
    return "\n".join(lines)


def _speed_line(row: Row, multiple: float) -> str:
    note = ", ".join(f"{name} {value}" for name, value in row.items() if name not in EXPLAINED)
    return f"| {row['name']} | {1e3 * row['median']:.2f} | {multiple:.2f} | {note} |"


def draw_unpacking(result: dict[str, Any], path: Path) -> None:
    """Draw the multiples of all groups that unpack; no picture where there is none."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = {
        group: relative
        for group, relative in ratios(result["rows"]).items()
        if group.startswith("unpack")
    }
    if not groups:
        return
    size = (9, 3.2 * len(groups))
    figure, axes = plt.subplots(len(groups), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, (group, relative) in zip(axes[:, 0], groups.items(), strict=True):
        names, values = list(relative)[::-1], list(relative.values())[::-1]
        colours = ["#c44" if name.startswith("authors") else "#48a" for name in names]
        axis.barh(names, values, color=colours)
        axis.set_xscale("log")
        axis.set_xlim(0.7, 3 * max(values))
        axis.set_title(group, fontsize=10, loc="left")
        axis.set_xlabel("multiple of copying the weights once")
        axis.axvline(1, color="black", linewidth=0.8)
        for index, value in enumerate(values):
            axis.text(value * 1.05, index, f"{value:.1f}", va="center", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    write_speed(Path(sys.argv[1]))
