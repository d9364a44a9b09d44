"""Settings are tuned: trials of a sweep's grid are trained, and the best are picked."""

from collections.abc import Sequence
from dataclasses import replace

from lincon.tasks.experiments.sweeps.grid import FIRST_SEED, Settings, Trial
from lincon.tasks.experiments.sweeps.report import group_seeds
from lincon.tasks.experiments.sweeps.sweep import Sweep, group_name
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.recipe import Cell
from lincon.tasks.experiments.training.run import Run


def trials(sweep: Sweep) -> list[tuple[Settings, Sweep]]:
    """The sweep of each combination of settings, in the folder ``tuning`` of the comparison."""
    grid = sweep.grid
    if grid is None:
        return []
    groups = dict.fromkeys(replace(cell, seed=FIRST_SEED) for cell in sweep.cells)
    seeds = range(FIRST_SEED, FIRST_SEED + grid.seeds)
    cells = [replace(cell, seed=seed) for seed in seeds for cell in groups]
    found = []
    for settings in grid.combinations:
        folder = "-".join(f"{name}-{value:g}" for name, value in settings.items())
        recipe = replace(sweep.recipe, held_out=grid.held_out, **settings)
        out = sweep.out / "tuning" / folder
        found.append((settings, replace(sweep, recipe=recipe, cells=cells, out=out)))
    return found


def tune(sweep: Sweep) -> Sweep:
    """Train the trials that are missing; called again, it continues. Without a grid do nothing.

    Returns:
        The sweep with all trials, and with what scored best for each model, scheme and DoF.

    Raises:
        LinconError: whatever `Sweep.check` refuses, of the comparison or of a trial.
    """
    if sweep.grid is None or sweep.trials:
        return sweep
    sweep.check()  # before hours of trials, not after
    measure = sweep.measures[0]
    tried = [
        _trial(group, settings, measure)
        for settings, trial in trials(sweep)
        for group in group_seeds(trial.run())
    ]
    best: dict[str, Trial] = {}
    for each in tried:
        name = group_name(Cell(each.model, each.scheme, each.asked, 0, sweep.recipe.task))
        if name not in best or each.rank(measure) > best[name].rank(measure):
            best[name] = each
    settings = {name: each.settings for name, each in best.items()}
    return replace(sweep, settings=settings, trials=tried)


def _trial(group: Sequence[Run], settings: Settings, measure: Measure) -> Trial:
    scores = {run.seed: measure.last(run.test) for run in group}
    return Trial(group[0].model, group[0].scheme, group[0].asked, settings, scores)
