"""The table and the picture of a results folder: every time as a multiple of its group's reference, in the same run."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

HIDDEN = ("group", "name", "median", "rounds", "reference")


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """group -> name -> median time as a multiple of the row's own reference, or of the first row of its group."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    first: dict[str, float] = {}
    for row in rows:
        reference = row.get("reference", first.setdefault(row["group"], row["median"]))
        groups[row["group"]][row["name"]] = row["median"] / reference
    return groups


def markdown(result: dict[str, Any]) -> str:
    machine, commit = result["machine"], result["commit"]
    lines = [
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"commit {str(commit['id'])[:8]}{' (with changes)' if commit.get('dirty') else ''}. Medians. The "
        "multiple is of copying the weights once, timed before every round, or else of the first row of the group.",
        "",
    ]
    by_group = ratios(result["rows"])
    for group, relative in by_group.items():
        lines += [f"**{group}**", "", "| what | milliseconds | multiple | |", "|:--|--:|--:|:--|"]
        for row in (r for r in result["rows"] if r["group"] == group):
            note = ", ".join(f"{k} {v}" for k, v in row.items() if k not in HIDDEN)
            lines.append(
                f"| {row['name']} | {1e3 * row['median']:.2f} | {relative[row['name']]:.2f} | {note} |"
            )
        lines.append("")
    return "\n".join(lines)


def picture(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = {g: r for g, r in ratios(result["rows"]).items() if g.startswith("unpack")}
    if not groups:
        return
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(9, 3.2 * len(groups)), squeeze=False, layout="constrained"
    )
    for axis, (group, relative) in zip(axes[:, 0], groups.items(), strict=True):
        names, values = list(relative)[::-1], list(relative.values())[::-1]
        axis.barh(
            names, values, color=["#c44" if n.startswith("authors") else "#48a" for n in names]
        )
        axis.set_xscale("log")
        axis.set_xlim(0.7, 3 * max(values))
        axis.set_title(group, fontsize=10, loc="left")
        axis.set_xlabel("multiple of copying the weights once")
        axis.axvline(1, color="black", linewidth=0.8)
        for index, value in enumerate(values):
            axis.text(value * 1.05, index, f"{value:.1f}", va="center", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(folder: Path) -> None:
    result = json.loads((folder / "results.json").read_text())
    (folder / "table.md").write_text(markdown(result))
    picture(result, folder / "picture.png")
    print(f"\n{markdown(result)}\nwritten to {folder}")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
