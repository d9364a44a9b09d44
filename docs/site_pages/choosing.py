"""Tables for the page that says how to choose: read from the newest results of each kind.

Every run with accuracies of schemes at some DoF gives a table, every sweep of DoF one of its laws.
"""

from collections.abc import Iterator
from typing import Any

from site_pages.markdown import table, with_spread
from site_pages.runs import Run, newest


def fragments() -> Iterator[tuple[str, str]]:
    compared = [run for run in newest() if accuracies(run) and not _held_out(run)]
    yield "tables/schemes.md", "\n".join(map(_schemes, compared))
    yield "tables/scaling.md", "\n".join(_scaling(run) for run in newest() if "fits" in run.content)
    yield "tables/recipes.md", _recipes()


def accuracies(run: Run) -> list[dict[str, Any]]:
    """The rows of a table of schemes: scheme, dof, accuracy and spread in %."""
    found = []
    for row in run.content.get("table", []):
        accuracy = row.get("measures", {}).get("accuracy") or (
            [row["accuracy"], row["spread"]] if {"accuracy", "spread"} <= row.keys() else None
        )
        if accuracy and {"scheme", "dof", "total"} <= row.keys():
            found.append({**row, "accuracy": accuracy[0], "spread": accuracy[1]})
    return found


def _held_out(run: Run) -> bool:
    """Whether its accuracies are those of training items that were held out."""
    return bool(run.content.get("recipe", {}).get("held_out"))


def _schemes(run: Run) -> str:
    """Schemes by budget, best first: the share of the free numbers says the budget."""
    rows = accuracies(run)
    whole = max(row["dof"] for row in rows)
    lines = []
    for row in sorted(rows, key=lambda row: (-_budget(row, whole), -row["accuracy"])):
        share = f"{100 * row['dof'] / whole:.3g} %"
        accuracy = with_spread(row["accuracy"], row["spread"])
        lines.append((row["scheme"], share, f"{row['dof']:,}", accuracy, f"{row['file_bytes']:,}"))
    head = ("scheme", "share", "dof", "test accuracy %", "file bytes")
    link = f"[{run.name}](/generated/runs/{run.name}.md)"
    return f"**{run.title}** ({link})\n\n{table(head, lines)}"


def _budget(row: dict[str, Any], whole: int) -> float:
    """The share of the DoF in tens, so that schemes of about one budget stay together."""
    return round(row["dof"] / whole, 2)


def _scaling(run: Run) -> str:
    rows = []
    for model, laws in run.content["fits"].items():
        power, best = laws["power"], run.content["best"][model]
        k, (low, high) = power["parameters"]["k"], power["intervals"]["k"]
        accuracies = _by_dof(run, model)
        dof, accuracy = max(accuracies.items(), key=lambda item: item[1])
        enough = min(dof for dof, mean in accuracies.items() if mean >= accuracy - 0.01)
        interval = f"{k:.2f} [{low:.2f}, {high:.2f}]"
        rows.append((model, interval, best, f"{100 * accuracy:.1f} at {dof:,}", f"{enough:,}"))
    head = ("model", "exponent k", "best law", "best accuracy %", "fewest DoF within 1 point")
    link = f"[{run.name}](/generated/runs/{run.name}.md)"
    return f"**{run.title}** ({link})\n\n{table(head, rows)}"


def _by_dof(run: Run, model: str) -> dict[int, float]:
    """The mean final test accuracy of a model, by DoF."""
    finals: dict[int, list[float]] = {}
    for each in run.content["runs"]:
        if each["model"] == model:
            tested = each["test_accuracy"] if "test_accuracy" in each else each["test"]["accuracy"]
            finals.setdefault(each["dof"], []).append(tested[-1])
    return {dof: sum(values) / len(values) for dof, values in finals.items()}


def _recipes() -> str:
    """The recipe of each newest run that trained something."""
    rows = []
    for run in newest():
        if recipe := run.content.get("recipe"):
            link = f"[{run.kind}](/generated/runs/{run.name}.md)"
            names = ("optimiser", "learning_rate", "schedule", "epochs", "batch", "weight_decay")
            rows.append((link, *(recipe.get(name, "–") for name in names)))
    head = ("run", "optimiser", "learning rate", "schedule", "epochs", "batch", "weight decay")
    return table(head, rows)
