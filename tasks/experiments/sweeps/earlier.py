"""Results that an experiment finds in its folder: it replaces those that it continues, and no others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lincon import LinconError
from lincon.tasks.experiments.output import check_replaceable
from lincon.tasks.experiments.training.recipe import Cell, cell_name, differences

SHOWN = 3  # names in a message


def check_same(
    results: Path, mark: str, described: Mapping[str, Any], cells: Sequence[Cell]
) -> None:
    """Raise LinconError if new results would lose what the earlier ones in a file show.

    Args:
        results: the JSON of an experiment; it may be missing.
        mark: of the command.
        described: what all new runs have in common, as plain JSON.
        cells: of which the new results will be made.
    """
    check_replaceable(results, mark)
    if not results.exists():
        return
    try:
        earlier = json.loads(results.read_text())
        recipe, runs = dict(earlier["recipe"]), list(earlier["runs"])
        names = [cell_name(*(run[key] for key in KEYS)) for run in runs]
    except (ValueError, TypeError, KeyError):
        raise LinconError(f"{results} is damaged: delete it, and call again.") from None
    lost = [name for name in dict.fromkeys(names) if name not in {cell.name for cell in cells}]
    if reasons := [*differences(recipe, described), *_more(lost)]:
        raise LinconError(
            f"{results} holds another experiment ({'; '.join(reasons)}): "
            "choose another --out, or delete it."
        )


KEYS = "model", "scheme", "asked", "seed"
"""Of a run, what makes the name of its cell."""


def _more(lost: Sequence[str]) -> list[str]:
    """In words, the trainings that the earlier results alone have."""
    if not lost:
        return []
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    return [f"with {', '.join(lost[:SHOWN])}{more}, which this call leaves out"]
