"""Commands that train many models and tabulate them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from lincon.errors import LinconError
from lincon.tasks.commands.arguments import (
    CLASSIFICATION,
    Dofs,
    Models,
    ObjectNet,
    Results,
    Scheme,
    Schemes,
    Seeds,
    Task,
    parse_dof,
    split_names,
)
from lincon.tasks.commands.checking import check_names
from lincon.tasks.commands.options import SweepOptions
from lincon.tasks.commands.printing import print_plan, print_result


def compare(
    options: SweepOptions,
    task: Task = CLASSIFICATION,
    schemes: Schemes = "",
    model: Models = "",
    dof: Dofs = "",
    seeds: Annotated[
        str,
        typer.Option(
            help="Runs of each, with the seeds 0, 1, ...; auto: until the difference between the "
            "first two schemes is decided."
        ),
    ] = "3",
    hours: Annotated[
        float | None, typer.Option(help="Of training that --seeds auto may spend.")
    ] = None,
    matters: Annotated[
        float | None,
        typer.Option(help="A smaller difference does not matter to --seeds auto; 0.2 by default."),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=VALUES",
            help="learning-rate=0.05,0.1 or weight-decay=...: tried for every scheme alike on "
            "training items that --held-out keeps apart; several options make a grid.",
        ),
    ] = None,
    tune_seeds: Annotated[int, typer.Option(min=1, help="Trials of each setting.")] = 1,
    out: Results = None,
) -> None:
    """Train schemes of sharing on equal terms and tabulate them; call again to continue."""
    from dataclasses import replace

    from lincon.tasks.experiments.sweeps import compare
    from lincon.tasks.experiments.sweeps.grid import Grid, parse, trials

    number, auto = _seeds(seeds, hours, matters)
    cells = _cells(task, schemes, model, dof, number)
    folder = out or Path("runs") / "compare"
    sweep, grid = options.sweep("compare", cells, folder), None
    if tune:
        grid = Grid(parse(tune), sweep.recipe.held_out, tune_seeds)
        sweep = replace(sweep, recipe=replace(sweep.recipe, held_out=0), choices=grid.described)
    if options.dry_run:
        for _, trial in trials(sweep, grid) if grid else ():
            print_plan(trial)
        print_plan(sweep)
        return
    print_result(compare.compare(sweep, grid, auto), folder)


def _seeds(text: str, hours: float | None, matters: float | None) -> tuple[int, Any]:
    """How many seeds there may be, and the `Auto` that chooses among them, if any does."""
    from math import inf

    from lincon.tasks.experiments.sweeps.auto import Auto
    from lincon.tasks.experiments.sweeps.statistics import LOOKS

    if text == "auto":
        return LOOKS[-1], Auto(0.2 if matters is None else matters, inf if hours is None else hours)
    if hours is not None or matters is not None:
        raise LinconError("--hours and --matters are of --seeds auto; leave them out.")
    if not text.isdecimal() or int(text) < 1:
        raise LinconError(f"--seeds is {text!r}; give 1 or more, or auto.")
    return int(text), None


def scaling(
    options: SweepOptions,
    task: Task = CLASSIFICATION,
    scheme: Scheme = "rpg",
    model: Models = "",
    dof: Dofs = "0.01,0.02,0.05,0.1,0.2,0.5",
    predict: Annotated[
        int | None, typer.Option(help="A DoF at which the score is predicted.")
    ] = None,
    seeds: Seeds = 3,
    out: Results = None,
) -> None:
    """Fit laws of the score against DoF to a sweep; call again to continue."""
    from lincon.tasks.classification.studies import scaling

    def run(sweep: Any) -> Any:
        return scaling.scaling(sweep, predict)

    if task == CLASSIFICATION:
        model = model or "resnet-small,resnet-medium"
    cells = _cells(task, scheme, model, dof, seeds)
    _run("scaling", run, options, cells, out)


def convergence(
    options: SweepOptions,
    schemes: Schemes = "vanilla,rpg",
    model: Models = "",
    dof: Dofs = "0.5,0.1",
    seeds: Seeds = 3,
    out: Results = None,
) -> None:
    """Compare with vanilla how many steps of classification schemes take to an accuracy."""
    from lincon.tasks.classification.studies import convergence

    cells = _cells(CLASSIFICATION, schemes, model, dof, seeds)
    _run("convergence", convergence.convergence, options, cells, out)


def generalization(
    options: SweepOptions,
    task: Task = CLASSIFICATION,
    schemes: Schemes = "",
    model: Models = "",
    dof: Dofs = "",
    seeds: Seeds = 3,
    objectnet: ObjectNet = None,
    out: Results = None,
) -> None:
    """Measure the gap between training and test; of classification, also on shifted images."""
    from lincon.tasks.experiments.sweeps import gap

    def with_shifts(sweep: Any) -> Any:
        from lincon.tasks.classification.studies import generalization

        return generalization.generalization(sweep, objectnet)

    experiment = gap.gap
    if task == CLASSIFICATION:
        experiment = with_shifts
        schemes, dof = schemes or "vanilla,rpg", dof or "0.5,0.1"
    elif objectnet is not None:
        raise LinconError(f"--objectnet is of classification, not of {task}; leave it out.")
    cells = _cells(task, schemes, model, dof, seeds)
    _run("generalization", experiment, options, cells, out)


def reproduce(
    options: SweepOptions,
    table: Annotated[
        str,
        typer.Argument(
            help="baselines, dof-accuracy, generalization, pruning, quantization, pose "
            "or multitask."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="The models that its rows speak of, separated by commas.")
    ] = "",
    seeds: Seeds = 3,
    objectnet: ObjectNet = None,
    out: Results = None,
) -> None:
    """Train the cells of a table of the paper, and write its figures beside ours."""
    from lincon.tasks.experiments.sweeps import reproduce

    paper = reproduce.find_table(table)
    models = split_names(model) or list(paper.models)
    if len(models) != len(paper.models):
        example = ",".join(paper.models)
        raise LinconError(
            f"--model is {model!r}; {table} takes {len(paper.models)}, as in {example}."
        )

    def run(sweep: Any) -> Any:
        return reproduce.reproduce(paper, models, sweep, objectnet)

    cells = reproduce.cells(paper, models, range(seeds))
    _run(f"reproduce {table}", run, options, cells, out or Path("runs") / table)


def _cells(task: str, schemes: str, model: str, dof: str, seeds: int) -> Any:
    """Every combination of what the options name; the task's defaults stand for an empty text."""
    check_names(task, split_names(schemes), split_names(model))
    from lincon.tasks.experiments.task import find_task
    from lincon.tasks.experiments.training.recipe import cells

    defaults = find_task(task).defaults
    every_scheme = ",".join(find_task(task).schemes)
    return cells(
        models=split_names(model or defaults["model"]),
        schemes=split_names(schemes or defaults.get("schemes", every_scheme)),
        dofs=[parse_dof(text) for text in split_names(dof or defaults["dof"])],
        seeds=range(seeds),
        task=task,
    )


def _run(
    command: str, experiment: Callable[[Any], Any], options: SweepOptions, cells: Any, out: Results
) -> None:
    """Run the experiment of a command on a sweep of ``cells``, and print its table."""
    folder = out or Path("runs") / command
    sweep = options.sweep(command, cells, folder)
    if options.dry_run:
        print_plan(sweep)
        return
    print_result(experiment(sweep), folder)
