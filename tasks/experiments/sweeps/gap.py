"""The gap between training and test: both scores of the trained model on items without augmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from lincon.tasks.experiments.sweeps.curves import group_by_label, picture
from lincon.tasks.experiments.sweeps.report import Result, mean_and_spread, notes_of, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

NOTE = "Gap: of the trained model, training minus test, both on images without augmentation."


def gap(sweep: Sweep) -> Result:
    """Train every cell, and write table, numbers and learning curves; called again it continues."""
    runs, measure = sweep.run(), sweep.measures[0]
    header, rows, table = tabulate(runs, measure)
    notes = [NOTE, *notes_of(runs)]
    result = Result(
        sweep.title, header, rows, {"table": table}, picture(runs, sweep.title, measure), notes
    )
    result.write(sweep, runs)
    return result


def gap_of(run: Run, measure: Measure) -> float:
    """How much better a model is on what it was trained on, in the units of the measure's label."""
    return measure.factor * (run.train_score - run.score) * (1 if measure.higher_is_better else -1)


def tabulate(
    runs: Sequence[Run], measure: Measure, more: Mapping[str, Mapping[int, float]] | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[dict[str, Any]]]:
    """Header, rows and numbers; ``more``: further columns, from the `id` of each run to a value as it is shown."""
    extra, table, rows = more or {}, [], []
    for label, group in group_by_label(runs).items():
        columns = {
            "train": [measure.factor * run.train_score for run in group],
            "test": [measure.factor * run.score for run in group],
            "gap": [gap_of(run, measure) for run in group],
            **{name: [values[id(run)] for run in group] for name, values in extra.items()},
        }
        summed = {name: mean_and_spread(values) for name, values in columns.items()}
        table.append({"scheme": label, "dof": group[0].dof, **summed})
        rows.append(
            (label, f"{group[0].dof:,}", *(with_spread(*value) for value in summed.values()))
        )
    header = (
        "scheme",
        "dof",
        f"train {measure.label}",
        f"test {measure.label}",
        "gap",
        *(f"{name} %" for name in extra),
    )
    return header, rows, table
