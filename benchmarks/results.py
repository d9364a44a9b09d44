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

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from lincon.tasks.experiments.sweeps.provenance import provenance
from lincon.tasks.experiments.sweeps.report import markdown

RESULTS = Path(__file__).parent / "results"
EXPLAINED = ("group", "name", "median", "rounds", "quartiles", "reference")
"""Entries of a row that the table shows in columns, or uses; it shows all others as notes."""

COLOURS = {"copying": "#999999", "lincon": "#0072B2", "other code": "#D55E00"}
"""Of what is measured; colour-blind readers tell them apart."""
OTHERS = {
    "copy into a buffer": "copy Ŵ once, into a buffer",
    "clone": "copy Ŵ once, into new memory",
    "authors: table and mask": "the paper's code: a table of indices and a mask of signs",
    "authors: table and mask, with its backward": "the paper's code, with the gradient",
    "UniLora: table and scale": "peft's UniLora: a table of indices and a scale",
    "UniLora: table and scale, with its backward": "peft's UniLora, with the gradient",
}
"""What rows measure that are not of lincon, in words."""

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


class Table:
    """Lines that a script measures: each is printed as it comes, and all may be kept.

    Args:
        header: the names of the columns.
    """

    def __init__(self, header: Sequence[str]) -> None:
        self.header = header
        self.lines: list[Sequence[Any]] = []
        self.numbers: list[dict[str, Any]] = []
        print(" | ".join(header))

    def add(self, line: Sequence[Any], numbers: dict[str, Any]) -> None:
        """Add and print a line; ``numbers`` are what it was made of."""
        self.lines.append(line)
        self.numbers.append(numbers)
        print(" | ".join(map(str, line)), flush=True)

    def keep(self, name: str, title: str) -> None:
        """`keep` what has been added, and say where."""
        print(f"written to {keep(name, title, self.header, self.lines, self.numbers)}")


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
    draw_unpacking(result, folder)
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


def draw_unpacking(result: dict[str, Any], folder: Path) -> None:
    """Draw the multiples of all groups that unpack, as PNG and SVG; nothing where there is none.

    A bar is the median. Where the JSON has quartiles, a line joins them.
    """
    from lincon.figure import Figure

    groups: dict[str, list[Row]] = defaultdict(list)
    for row in result["rows"]:
        if row["group"].startswith("unpack"):
            groups[row["group"]].append(row)
    if not groups:
        return
    relative = ratios(result["rows"])
    rows = max(map(len, groups.values()))
    figure = Figure(figsize=(9, (0.24 * rows + 1) * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
    for axes, (group, measured) in zip(panels, groups.items(), strict=True):
        _draw_group(axes, measured, relative[group])
        axes.set_title(_in_words(group), fontsize=10, loc="left")
    handles = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    (folder / "picture.png").write_bytes(figure.png())
    (folder / "picture.svg").write_bytes(figure.svg())


def _draw_group(axes: Axes, rows: Sequence[Row], relative: dict[str, float]) -> None:
    for place, row in enumerate(reversed(rows)):
        multiple = relative[row["name"]]
        axes.barh(place, multiple, color=_colour(row["name"]), height=0.7)
        ends = [multiple * each / row["median"] for each in row.get("quartiles", [])]
        if ends:
            axes.plot(ends, [place, place], color="black", linewidth=1.2, marker="|", markersize=5)
        end = max([multiple, *ends])
        axes.text(1.06 * end, place, f"{multiple:.1f}", va="center", fontsize=8)
    names: list[str] = [OTHERS.get(row["name"]) or row["name"] for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(0.7, 3 * max(relative[row["name"]] for row in rows))
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    spread = ", with the quartiles of all rounds" if "quartiles" in rows[0] else ""
    axes.set_xlabel(f"time as a multiple of copying Ŵ once: median{spread}", fontsize=9)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)


def _colour(name: str) -> str:
    if OTHERS.get(name, "").startswith("copy"):
        return COLOURS["copying"]
    return COLOURS["other code" if name in OTHERS else "lincon"]


def _in_words(group: str) -> str:
    """The title of a group.

    >>> _in_words("unpack, rows 11,157,504, dof 46,080, float32")
    'Ŵ of 11,157,504 weights from 46,080 free numbers, float32'
    """
    _, *words = group.split(", ")
    return (
        ", ".join(words)
        .replace("rows ", "Ŵ of ")
        .replace(", dof ", " weights from ")
        .replace(", float", " free numbers, float")
    )


if __name__ == "__main__":
    write_speed(Path(sys.argv[1]))
