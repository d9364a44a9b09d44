"""Compare schemes of sharing on equal terms: same model, data, schedule, seeds and DoF."""

from collections.abc import Sequence
from dataclasses import asdict

from lincon.tasks.classification.curves import picture
from lincon.tasks.classification.report import HEADER, Result, lines
from lincon.tasks.classification.sweep import Sweep
from lincon.tasks.classification.training import Run


def compare(sweep: Sweep) -> Result:
    """Train every cell, and write table, numbers and learning curves; called again it continues."""
    runs = sweep.run()
    result = summarise(runs, sweep.title)
    result.write(sweep, runs)
    return result


def summarise(runs: Sequence[Run], title: str) -> Result:
    """The table of a comparison; a column says the model where there are several."""
    table = lines(runs)
    many = len({entry.model for entry in table}) > 1
    rows = [((f"{e.model}, {e.scheme}", *e.cells()[1:]) if many else e.cells()) for e in table]
    return Result(title, HEADER, rows, {"table": [asdict(entry) for entry in table]}, picture(runs, title))
