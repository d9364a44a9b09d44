"""The gap between training and test: both scores of the trained model, without augmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from lincon.tasks.experiments.sweeps.curves import group_by_label, picture
from lincon.tasks.experiments.sweeps.picked import with_picked
from lincon.tasks.experiments.sweeps.report import Result, mean_and_spread, notes_of, with_spread
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tune import tune
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.run import Run

NOTE = "Gap: of the trained model, training minus test, both on images without augmentation."


def gap(sweep: Sweep) -> Result:
    """Train every cell, and write table, numbers and learning curves; called again it continues."""
    sweep = tune(sweep)
    runs, measure = sweep.run(), sweep.measures[0]
    header, rows, table = tabulate(runs, measure)
    result = Result(
        title=sweep.title,
        header=header,
        texts=rows,
        numbers={"table": table},
        figure=picture(runs, sweep.title, measure),
        notes=[NOTE, *notes_of(runs)],
    )
    result = with_picked(result, sweep, [group[0] for group in group_by_label(runs).values()])
    result.write(sweep, runs)
    return result


def gap_of(run: Run, measure: Measure) -> float:
    """How much better a model is on its training set, in the unit of the measure's label."""
    difference = measure.factor * (run.train_score - run.score)
    return difference if measure.higher_is_better else -difference


def tabulate(
    runs: Sequence[Run], measure: Measure, more: Mapping[str, Mapping[int, float]] | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[dict[str, Any]]]:
    """A table of scores and gaps.

    Args:
        runs: a line is made of those that differ in their seeds only.
        measure: the score.
        more: further columns by name: `id` of a run -> value as it is shown.

    Returns:
        Header, rows and, as plain JSON, numbers.
    """
    more = more or {}
    table, rows = [], []
    for label, group in group_by_label(runs).items():
        columns = {
            "train": [measure.factor * run.train_score for run in group],
            "test": [measure.factor * run.score for run in group],
            "gap": [gap_of(run, measure) for run in group],
        }
        for name, values in more.items():
            columns[name] = [values[id(run)] for run in group]
        summaries = {name: mean_and_spread(values) for name, values in columns.items()}
        texts = [with_spread(*summary) for summary in summaries.values()]
        table.append({"scheme": label, "dof": group[0].dof, **summaries})
        rows.append((label, f"{group[0].dof:,}", *texts))
    scores = f"train {measure.label}", f"test {measure.label}"
    header = ("scheme", "dof", *scores, "gap", *[f"{name} %" for name in more])
    return header, rows, table
