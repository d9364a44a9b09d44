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
    SCALED,
    SCALED_DOF,
    SEEDS,
)

_CONTRASTED, _CONTRASTED_DOF, _SCALED, _SCALED_DOF = (
    ",".join(map(str, values)) for values in (CONTRASTED, CONTRASTED_DOF, SCALED, SCALED_DOF)
)


def compare(
    options: SweepOptions,
    task: Task = CLASSIFICATION,
    schemes: Schemes = "",
    model: Models = "",
    dof: Dofs = "",
    seeds: Seeds = SEEDS,
    out: Results = None,
) -> None:
    """Train schemes of sharing on equal terms and tabulate them; call again to continue."""
    _call("compare", options, out, _grid(schemes, model, dof, seeds), task=task)


def scaling(
    options: SweepOptions,
    scheme: Scheme = "rpg",
    model: Models = _SCALED,
    dof: Dofs = _SCALED_DOF,
    predict: Annotated[
        int | None, typer.Option(help="A DoF at which accuracy is predicted.")
    ] = None,
    seeds: Seeds = SEEDS,
    out: Results = None,
) -> None:
    """Fit laws of accuracy against DoF to a sweep of classification; call again to continue."""
    grid = _grid(scheme, model, dof, seeds)
    _call("scaling", options, out, grid | {"scheme": scheme}, predict=predict)


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


def _grid(schemes: str, model: str, dof: str, seeds: int) -> dict[str, Any]:
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
