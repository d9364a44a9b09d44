"""The command that trains one model."""

from pathlib import Path
from typing import Annotated, Any

import typer

import lincon
from lincon.errors import LinconError
from lincon.tasks.commands.arguments import CLASSIFICATION, FUNCTION, Scheme, Task, parse_dof
from lincon.tasks.commands.checking import check_names
from lincon.tasks.commands.options import Options
from lincon.tasks.commands.printing import print_measures, print_result


def train(
    options: Options,
    task: Task = CLASSIFICATION,
    scheme: Scheme = "rpg",
    model: Annotated[
        str, typer.Option(help=f"Name, also with options (vit-tiny:patch=2); or {FUNCTION}")
    ] = "",
    dof: Annotated[
        str, typer.Option(help="Free numbers: 4096 (a count) or 0.1 (a fraction).")
    ] = "",
    seed: Annotated[
        int, typer.Option(help="Of initialisation, G and the order of the images.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last epoch in the folder.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder of model.safetensors and of the checkpoint.")
    ] = Path("runs/train"),
) -> None:
    """Train one scheme and save the model."""
    check_names(task, [scheme], [model] if model else [])
    from lincon.tasks.experiments.files import RESULTS
    from lincon.tasks.experiments.sweeps.plan import preview
    from lincon.tasks.experiments.sweeps.sweep import Sweep
    from lincon.tasks.experiments.task import find_task
    from lincon.tasks.experiments.training import training
    from lincon.tasks.experiments.training.progress import EpochBar
    from lincon.tasks.experiments.training.ranks import exit_unless_first
    from lincon.tasks.experiments.training.recipe import Cell
    from lincon.tasks.experiments.training.record import SAVED
    from lincon.tasks.interface.settings import Settings

    defaults = find_task(task).defaults
    settings = Settings(task, **options.settings())
    recipe, setup = settings.recipe(options.data or ""), settings.setup()
    free = parse_dof(dof or defaults["dof"])
    cell = Cell(model or defaults["model"], scheme, free, seed, task)
    if options.dry_run:
        print_result(preview(Sweep(recipe, [cell], out, setup)), out)
        return
    if (out / RESULTS).exists():
        raise LinconError(f"{out} holds an experiment (it has {RESULTS}): give another --out.")
    if not resume and (out / SAVED).exists():
        raise LinconError(f"{out} holds a trained model: give another --out, or delete it.")
    with EpochBar(recipe.epochs, quiet=options.quiet) as bar:
        bar.describe(f"{scheme}, seed {seed}")
        trained, run = training.train(recipe, cell, out, setup, [bar], resume=resume)
    exit_unless_first()
    typer.echo(lincon.summary(trained))
    print_measures(task, {name: values[-1] for name, values in run.test.items()})
    typer.echo(f"{run.file_bytes:,} bytes in {out / SAVED}")
    if run.note:
        typer.echo(run.note)
    _check_finite(trained)


def _check_finite(model: Any) -> None:
    """Raise LinconError if a parameter of the model holds NaN or infinity."""
    for name, tensor in model.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise LinconError(
                f"the training diverged: {name!r} holds NaN or infinity; lower --learning-rate."
            )
