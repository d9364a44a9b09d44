"""Commands that train many models and tabulate them."""

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
from lincon.tasks.commands.printing import print_result
from lincon.tasks.interface.defaults import (
    CONTRASTED,
    CONTRASTED_DOF,
    SCALED_DOF,
    SEEDS,
)

_CONTRASTED, _CONTRASTED_DOF, _SCALED_DOF = (
    ",".join(map(str, values)) for values in (CONTRASTED, CONTRASTED_DOF, SCALED_DOF)
)


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
    out: Results = None,
) -> None:
    """Train schemes of sharing on equal terms and tabulate them; call again to continue."""
    grid = _grid(schemes, model, dof, _seeds(seeds, hours, matters))
    _call("compare", options, out, grid, task=task)


def _seeds(text: str, hours: float | None, matters: float | None) -> Any:
    """The number of seeds, or the `Auto` that chooses it."""
    if text == "auto":
        from lincon.tasks.experiments.sweeps.auto import Auto

        limits = {"hours": hours, "matters": matters}
        return Auto(**{name: value for name, value in limits.items() if value is not None})
    if hours is not None or matters is not None:
        raise LinconError("--hours and --matters are of --seeds auto; leave them out.")
    if not text.isdecimal() or int(text) < 1:
        raise LinconError(f"--seeds is {text!r}; give 1 or more, or auto.")
    return int(text)


def scaling(
    options: SweepOptions,
    task: Task = CLASSIFICATION,
    scheme: Scheme = "rpg",
    model: Models = "",
    dof: Dofs = _SCALED_DOF,
    predict: Annotated[
        int | None, typer.Option(help="A DoF at which the score is predicted.")
    ] = None,
    seeds: Seeds = SEEDS,
    out: Results = None,
) -> None:
    """Fit laws of the score against DoF to a sweep; call again to continue."""
    grid = _grid(scheme, model, dof, seeds)
    _call("scaling", options, out, grid | {"scheme": scheme}, task=task, predict=predict)


def convergence(
    options: SweepOptions,
    schemes: Schemes = _CONTRASTED,
    model: Models = "",
    dof: Dofs = _CONTRASTED_DOF,
    seeds: Seeds = SEEDS,
    out: Results = None,
) -> None:
    """Compare with vanilla how many steps of classification schemes take to an accuracy."""
    _call("convergence", options, out, _grid(schemes, model, dof, seeds))


def generalization(
    options: SweepOptions,
    task: Task = CLASSIFICATION,
    schemes: Schemes = "",
    model: Models = "",
    dof: Dofs = "",
    seeds: Seeds = SEEDS,
    objectnet: ObjectNet = None,
    out: Results = None,
) -> None:
    """Measure the gap between training and test; of classification, also on shifted images."""
    grid = _grid(schemes, model, dof, seeds)
    _call("generalization", options, out, grid, task=task, objectnet=objectnet)


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
    seeds: Seeds = SEEDS,
    objectnet: ObjectNet = None,
    out: Results = None,
) -> None:
    """Train the cells of a table of the paper, and write its figures beside ours."""
    from lincon.tasks.experiments.sweeps import reproduce
    from lincon.tasks.interface import experiments
    from lincon.tasks.interface.settings import Settings

    paper = reproduce.find_table(table)
    models = split_names(model) or list(paper.models)
    if len(models) != len(paper.models):
        example = ",".join(paper.models)
        raise LinconError(
            f"--model is {model!r}; {table} takes {len(paper.models)}, as in {example}."
        )

    def work(sweep: Any) -> Any:
        return reproduce.reproduce(paper, models, sweep, objectnet)

    folder = out or Path("runs") / table
    settings = Settings(paper.task, folder, **options.settings())
    cells = reproduce.cells(paper, models, range(seeds))
    recipe = settings.recipe(options.data or "")
    print_result(experiments.run(f"reproduce {table}", work, recipe, cells, settings), folder)


def _grid(schemes: str, model: str, dof: str, seeds: Any) -> dict[str, Any]:
    """What an experiment combines, as its arguments; an empty text leaves it to the experiment."""
    return {
        "schemes": split_names(schemes) if schemes else None,
        "model": split_names(model) if model else None,
        "dof": [parse_dof(text) for text in split_names(dof)] if dof else None,
        "seeds": seeds,
    }


def _call(
    name: str,
    options: SweepOptions,
    out: Results,
    grid: dict[str, Any],
    *,
    task: str = CLASSIFICATION,
    **more: Any,
) -> None:
    """Call the function of `lincon.experiments`, and print its table."""
    check_names(task, grid["schemes"] or [], grid["model"] or [])
    from lincon import experiments

    if "scheme" in grid:
        del grid["schemes"]
    folder = out or Path("runs") / name
    arguments = {**grid, **options.settings(), **more, "task": task, "out": folder}
    print_result(getattr(experiments, name)(data=options.data, **arguments), folder)
