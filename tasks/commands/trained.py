"""Commands on trained models: measure, prune, quantise, export, inspect."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import lincon
from lincon.recycling import keep_pages
from lincon.tasks.commands.arguments import Root, Trained, parse_dof
from lincon.tasks.commands.checking import check_there
from lincon.tasks.commands.printing import print_measures
from lincon.tasks.experiments.files import check_folder

Changed = Annotated[
    Path, typer.Option(help="Folder of the changed model, for lincon evaluate, predict and so on.")
]


def evaluate(
    run: Trained,
    root: Root = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Of pose: average with the mirror image.")
    ] = False,
) -> None:
    """Measure a trained model again on the whole test set."""
    from lincon.tasks.experiments.trained.evaluate import evaluate

    task, values = evaluate(run, root, flip=flip)
    print_measures(task, values)


def prune(
    run: Trained,
    keep: Annotated[
        str, typer.Option(help="What is kept: 4096 (a count) or 0.5 (a fraction).")
    ] = "0.5",
    level: Annotated[
        str, typer.Option(help="free (numbers of the free vector) or weights (DoF stay).")
    ] = "free",
    epochs: Annotated[int, typer.Option(min=0, help="Of training after the pruning.")] = 0,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", "--lr", help="A tenth of the training's by default."),
    ] = None,
    root: Root = None,
    out: Changed = Path("runs/pruned"),
) -> None:
    """Prune a trained model, train it on, and measure it before and after."""
    from lincon.tasks.experiments.trained.tuning import Tuning
    from lincon.tasks.experiments.training.progress import EpochBar

    kept = parse_dof(keep)

    def change(model: Any) -> None:
        lincon.prune(model, kept, level=level)

    with EpochBar(max(1, epochs)) as bar:
        bar.describe("pruned")
        _tune(run, out, change, Tuning(epochs, learning_rate, [bar]), root)


def quantize(
    run: Trained,
    bits: Annotated[int, typer.Option(help="Of an integer, 2 to 8.")] = 8,
    size: Annotated[
        int | None, typer.Option(help="Integers that share a step; 64 or more by default.")
    ] = None,
    root: Root = None,
    out: Changed = Path("runs/quantized"),
) -> None:
    """Quantise the free vector of a trained model, and measure it before and after."""
    from lincon.tasks.experiments.trained.tuning import Tuning

    def change(model: Any) -> None:
        lincon.quantize(model, bits, size)

    _tune(run, out, change, Tuning(), root)


def _tune(
    run: Path, out: Path, change: Callable[[Any], None], tuning: Any, root: Path | None
) -> None:
    """Change the model in ``run``, and print what it was and what it is in ``out``."""
    from lincon.tasks.experiments.task import find_task
    from lincon.tasks.experiments.trained.tuning import tune
    from lincon.tasks.experiments.training.record import SAVED, reload

    check_folder(out)
    keep_pages()
    model, before, after = tune(run, out, change, tuning, root)
    typer.echo(lincon.summary(model))
    zeros, rows = lincon.zeros(model)
    typer.echo(f"zero weights           {zeros:>14,}  (of {rows:,} generated, {zeros / rows:.1%})")
    _, cell, _, _ = reload(out)
    for measure in find_task(cell.task).measures:
        typer.echo(f"test {measure.label}: {measure.shown(before)} -> {measure.shown(after)}")
    old_bytes, new_bytes = ((folder / SAVED).stat().st_size for folder in (run, out))
    typer.echo(f"{old_bytes:,} -> {new_bytes:,} bytes in {out / SAVED}")


def export(
    run: Trained,
    file: Annotated[
        Path,
        typer.Argument(help="model.safetensors (a plain state_dict), model.pt2, or model.onnx."),
    ],
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Eight-bit execution, calibrated on training images: .pt2"),
    ] = False,
    root: Root = None,
) -> None:
    """Write a trained model in a format that needs no lincon; its outputs are checked."""
    from lincon.tasks.experiments.trained.deploying import deploy

    for line in deploy(run, file, root, int8=int8):
        typer.echo(line)


def inspect(
    file: Annotated[
        Path, typer.Argument(help="A file written by lincon.save, or the folder of a training.")
    ],
) -> None:
    """Say what a saved model's file holds."""
    from lincon.tasks.experiments.files import SAVED

    check_there(file, "a file written by lincon.save, or the folder of a training")
    typer.echo(lincon.inspect(check_there(file / SAVED, "a training") if file.is_dir() else file))
