"""The command line. Options are read here; what commands do is in the tasks, which only they import."""

try:
    import typer
    from rich.console import Console
except ImportError:
    raise SystemExit(
        "lincon: the command line is not installed: pip install 'lincon-torch[tasks]'"
    ) from None

import inspect as signatures
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
import torch.distributed as dist
from typer.core import TyperGroup

import lincon
from lincon.errors import LinconError
from lincon.recycling import keep_pages
from lincon.tasks.commands.options import Options, Sweeping, Training, split_names

UsageError: Any = typer.BadParameter.__mro__[
    1
]  # of click, which newer versions of typer carry inside


TASKS = (
    "kornia",
    "lightning",
    "matplotlib",
    "PIL",
    "rich",
    "sklearn",
    "tensorboardX",
    "torchmetrics",
    "typer",
)
EXTRAS = {
    **dict.fromkeys(TASKS, "tasks"),
    **dict.fromkeys(("onnx", "onnxscript", "torchao"), "export"),
    "ray": "parallel",
}
"""Which extra installs what, by the names under which it is imported."""


class OneLine(TyperGroup):
    """Commands whose refusals are one line on the error stream and exit code 2, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        _end(error.format_message(), 2)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        remedy = f": pip install 'lincon-torch[{extra}]'" if extra else ""
        _end(f"{error.name or error} is not installed{remedy}", 2)
    except (LinconError, OSError) as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        _end(
            "interrupted; called again, an experiment goes on from its finished runs, train with --resume, others anew",
            130,
        )


def _end(message: str, code: int) -> None:
    typer.echo(f"lincon: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=OneLine,
    no_args_is_help=True,
    add_completion=False,
    help="Train neural networks under linear constraints.",
)


def training(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command whose first parameter, `Options` or `Sweeping`, stands for its options."""
    first, *own = signatures.signature(function).parameters.values()
    kind: type[Options] = get_type_hints(function)[first.name]

    def command(**given: Any) -> None:
        mine = {field.name: given.pop(field.name) for field in fields(kind)}
        torch.set_num_threads(mine["threads"])
        keep_pages()
        function(kind(**mine), **given)

    shared = signatures.signature(kind).parameters.values()
    keyword = [p.replace(kind=signatures.Parameter.KEYWORD_ONLY) for p in (*own, *shared)]
    command.__signature__ = signatures.Signature(keyword)  # type: ignore[attr-defined]
    hints = get_type_hints(kind, include_extras=True) | get_type_hints(
        function, include_extras=True
    )
    command.__annotations__ = {p.name: hints[p.name] for p in keyword}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return app.command(cls=Training)(command)


Task = Annotated[str, typer.Argument(help="classification, pose or indoor.")]
Schemes = Annotated[
    str, typer.Option(help="Names with commas between; the task's own choice by default.")
]
Model = Annotated[
    str,
    typer.Option(
        help="Name, also with options (vit-tiny:patch=2), or package.module:function; commas between several."
    ),
]
Dof = Annotated[
    str,
    typer.Option(help="Free numbers: 4096 (a count) or 0.1 (a fraction); commas between several."),
]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each, with the seeds 0, 1, ...")]
Out = Annotated[
    Path | None, typer.Option(help="Folder of table.md, results.json, picture.png and runs/.")
]
ObjectNet = Annotated[
    Path | None, typer.Option(help="Folder of ObjectNet, for models of ImageNet.")
]
OF_IMAGES = "classification"


@training
def train(
    options: Options,
    task: Task = OF_IMAGES,
    scheme: Annotated[str, typer.Option(help="Scheme of sharing.")] = "rpg",
    model: Annotated[
        str, typer.Option(help="Name, also with options, or package.module:function.")
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
    from lincon.tasks.experiments.task import find_task
    from lincon.tasks.experiments.training import training
    from lincon.tasks.experiments.training.progress import EpochBar
    from lincon.tasks.experiments.training.ranks import exit_unless_first
    from lincon.tasks.experiments.training.recipe import Cell
    from lincon.tasks.experiments.training.record import SAVED

    defaults = find_task(task).defaults
    recipe = options.recipe(task)
    cell = Cell(model or defaults["model"], scheme, _dof(dof or defaults["dof"]), seed, task)
    setup = options.setup()
    if not resume and (out / SAVED).exists():
        raise LinconError(f"{out} holds a trained model: give another --out, or delete it.")
    with EpochBar(recipe.epochs) as bar:
        bar.describe(f"{scheme}, seed {seed}")
        trained, run = training.train(
            recipe,
            cell,
            out,
            setup,
            callbacks=[bar],
            resume=resume,
        )
    exit_unless_first()
    typer.echo(lincon.summary(trained))
    _measures(task, {name: values[-1] for name, values in run.test.items()})
    typer.echo(f"{run.file_bytes:,} bytes in {out / SAVED}")
    if run.note:
        typer.echo(run.note)
    if odd := next(
        (name for name, tensor in trained.named_parameters() if not bool(tensor.isfinite().all())),
        None,
    ):
        raise LinconError(
            f"the training diverged: {odd!r} holds NaN or infinity; lower --learning-rate."
        )


@training
def compare(
    options: Sweeping,
    task: Task = OF_IMAGES,
    schemes: Schemes = "",
    model: Model = "",
    dof: Dof = "",
    seeds: Seeds = 3,
    out: Out = None,
) -> None:
    """Train schemes of sharing on equal terms and tabulate them; call again to continue."""
    from lincon.tasks.experiments.sweeps import compare

    _run(compare.compare, options, task, schemes, model, dof, seeds, out or Path("runs/compare"))


@training
def scaling(
    options: Sweeping,
    scheme: Annotated[str, typer.Option(help="Scheme of sharing.")] = "rpg",
    model: Model = "resnet-small,resnet-medium",
    dof: Dof = "0.01,0.02,0.05,0.1,0.2,0.5",
    predict: Annotated[
        int | None, typer.Option(help="A DoF at which accuracy is predicted.")
    ] = None,
    seeds: Seeds = 3,
    out: Out = None,
) -> None:
    """Accuracy of classification against DoF: train a sweep, fit laws, compare exponents; call again to continue."""
    from lincon.tasks.classification.studies import scaling

    def run(sweep: Any) -> Any:
        return scaling.scaling(sweep, predict)

    _run(run, options, OF_IMAGES, scheme, model, dof, seeds, out or Path("runs/scaling"))


@training
def convergence(
    options: Sweeping,
    schemes: Schemes = "vanilla,rpg",
    model: Model = "",
    dof: Dof = "0.5,0.1",
    seeds: Seeds = 3,
    out: Out = None,
) -> None:
    """Steps of classification to reach an accuracy, constrained against vanilla on the same schedule."""
    from lincon.tasks.classification.studies import convergence

    _run(
        convergence.convergence,
        options,
        OF_IMAGES,
        schemes,
        model,
        dof,
        seeds,
        out or Path("runs/convergence"),
    )


@training
def generalization(
    options: Sweeping,
    task: Task = OF_IMAGES,
    schemes: Schemes = "",
    model: Model = "",
    dof: Dof = "",
    seeds: Seeds = 3,
    objectnet: ObjectNet = None,
    out: Out = None,
) -> None:
    """The gap between training and test; of classification, also accuracy on shifted images (or ObjectNet)."""
    from lincon.tasks.experiments.sweeps import gap

    def run(sweep: Any) -> Any:
        from lincon.tasks.classification.studies import generalization

        return generalization.generalization(sweep, objectnet)

    if task == OF_IMAGES:
        schemes, dof = schemes or "vanilla,rpg", dof or "0.5,0.1"
    elif objectnet is not None:
        raise LinconError(f"--objectnet is of classification, not of {task}; leave it out.")
    experiment = run if task == OF_IMAGES else gap.gap
    _run(experiment, options, task, schemes, model, dof, seeds, out or Path("runs/generalization"))


@training
def reproduce(
    options: Sweeping,
    table: Annotated[
        str,
        typer.Argument(
            help="baselines, dof-accuracy, generalization, pruning, quantization, pose or multitask."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="The models that its rows speak of, commas between.")
    ] = "",
    seeds: Seeds = 3,
    objectnet: ObjectNet = None,
    out: Out = None,
) -> None:
    """A table of the paper, its figures beside ours."""
    from lincon.tasks.experiments.sweeps import reproduce

    paper = reproduce.find_table(table)
    models = split_names(model) or list(paper.models)
    if len(models) != len(paper.models):
        raise LinconError(
            f"--model is {model!r}; {table} takes {len(paper.models)}, as in {','.join(paper.models)}."
        )
    out = out or Path("runs") / table
    sweep = options.sweep(reproduce.cells(paper, models, range(seeds)), out)
    _show(reproduce.reproduce(paper, models, sweep, objectnet), out)


Run = Annotated[Path, typer.Option(help="Folder of a training, as lincon train leaves it.")]
Pictures = Annotated[list[Path], typer.Argument(help="Files of pictures.")]
predict = typer.Typer(no_args_is_help=True, help="What a trained model sees in pictures of yours.")
app.add_typer(predict, name="predict")


@predict.command("pose")
def predict_pose(
    images: Pictures,
    run: Run = Path("runs/train"),
    box: Annotated[
        str,
        typer.Option(metavar="X,Y,SIDE", help="Square around the person; all of it by default."),
    ] = "",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image.")] = False,
    out: Annotated[
        Path, typer.Option(help="Folder of the drawings and of the joints as JSON.")
    ] = Path("runs/predict"),
) -> None:
    """Draw the skeleton on pictures, and write the joints as JSON."""
    from lincon.tasks.pose.predict import predict

    for files in predict(images, run, out, _box(box), flip=flip):
        typer.echo(f"written: {', '.join(map(str, files))}")


@predict.command("indoor")
def predict_indoor(
    images: Pictures,
    run: Run = Path("runs/train"),
    out: Annotated[Path, typer.Option(help="Folder of the depth and the normals as PNG.")] = Path(
        "runs/predict"
    ),
) -> None:
    """Write depth (16-bit PNG and a coloured view) and surface normals (PNG) of pictures."""
    from lincon.tasks.indoor.predict import predict

    for files in predict(images, run, out):
        typer.echo(f"written: {', '.join(map(str, files))}")


def _box(text: str) -> tuple[float, float, float] | None:
    if not text:
        return None
    try:
        x, y, side = map(float, text.split(","))
    except ValueError:
        raise LinconError(f"--box is {text!r}; give X,Y,SIDE in pixels, as 320,240,400.") from None
    if not (isfinite(x) and isfinite(y) and 0 < side < inf):
        raise LinconError(f"--box is {text!r}; the numbers must be finite, the side positive.")
    return x, y, side


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a training, as lincon train leaves it.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data set, where it is not embedded.")
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Of pose: average with the mirror image.")
    ] = False,
) -> None:
    """Measure a trained model again on the whole test set."""
    from lincon.tasks.experiments.trained.evaluate import evaluate

    task, found = evaluate(run, root, flip=flip)
    _measures(task, found)


def _measures(task: str, found: dict[str, float]) -> None:
    from lincon.tasks.experiments.task import find_task

    for measure in find_task(task).measures:
        typer.echo(f"test {measure.label}: {measure.factor * found[measure.name]:.2f}")


Tuned = Annotated[
    Path, typer.Option(help="Folder of the changed model, for lincon evaluate, predict and so on.")
]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the data set, where it is not embedded.")
]


@app.command()
def prune(
    run: Annotated[Path, typer.Argument(help="Folder of a training, as lincon train leaves it.")],
    keep: Annotated[
        str, typer.Option(help="What is kept: 4096 (a count) or 0.5 (a fraction).")
    ] = "0.5",
    level: Annotated[
        str, typer.Option(help="free (numbers of the free vector) or weights (DoF stay).")
    ] = "free",
    epochs: Annotated[int, typer.Option(min=0, help="To train on afterwards.")] = 0,
    learning_rate: Annotated[
        float | None, typer.Option(help="A tenth of the training's by default.")
    ] = None,
    root: Root = None,
    out: Tuned = Path("runs/pruned"),
) -> None:
    """Prune a trained model, train it on, and measure it before and after."""
    from lincon.tasks.experiments.training.progress import EpochBar

    kept = _dof(keep)
    with EpochBar(max(1, epochs)) as bar:
        bar.describe("pruned")
        _tune(
            run,
            out,
            lambda model: lincon.prune(model, kept, level=level),
            epochs=epochs,
            learning_rate=learning_rate,
            root=root,
            callbacks=[bar],
        )


@app.command()
def quantize(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a training, as lincon train or lincon prune leaves it."),
    ],
    bits: Annotated[int, typer.Option(help="Of an integer, 2 to 8.")] = 8,
    size: Annotated[
        int | None, typer.Option(help="Integers that share a step; 64 or more by default.")
    ] = None,
    root: Root = None,
    out: Tuned = Path("runs/quantized"),
) -> None:
    """Quantise the free vector of a trained model, and measure it before and after."""
    _tune(run, out, lambda model: lincon.quantize(model, bits, size), root=root)


def _tune(run: Path, out: Path, change: Callable[[Any], object], **options: Any) -> None:
    from lincon.tasks.experiments.task import find_task
    from lincon.tasks.experiments.trained.tuning import tune
    from lincon.tasks.experiments.training.record import SAVED, reload

    keep_pages()
    model, before, after = tune(run, out, change, **options)
    typer.echo(lincon.summary(model))
    zeros, rows = lincon.zeros(model)
    typer.echo(f"zero weights           {zeros:>14,}  (of {rows:,} generated, {zeros / rows:.1%})")
    for measure in find_task(reload(out)[1].task).measures:
        values = (f"{measure.factor * found[measure.name]:.2f}" for found in (before, after))
        typer.echo(f"test {measure.label}: {' -> '.join(values)}")
    sizes = (f"{(folder / SAVED).stat().st_size:,}" for folder in (run, out))
    typer.echo(f"{' -> '.join(sizes)} bytes in {out / SAVED}")


@app.command()
def export(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a training, as lincon train or lincon prune leaves it."),
    ],
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


@app.command()
def inspect(
    file: Annotated[
        Path, typer.Argument(help="A file written by lincon.save, or the folder of a training.")
    ],
) -> None:
    """Say what a saved model's file holds."""
    from lincon.tasks.experiments.training.record import SAVED

    typer.echo(lincon.inspect(file / SAVED if file.is_dir() else file))


def _run(
    experiment: Callable[[Any], Any],
    options: Sweeping,
    task: str,
    schemes: str,
    model: str,
    dof: str,
    seeds: int,
    out: Path,
) -> None:
    """Run an experiment on every combination; what is empty is as the task has it."""
    from lincon.tasks.experiments.task import find_task
    from lincon.tasks.experiments.training.recipe import cells

    defaults, every = find_task(task).defaults, ",".join(find_task(task).schemes)
    models, dofs = (
        split_names(model or defaults["model"]),
        [_dof(text) for text in split_names(dof or defaults["dof"])],
    )
    chosen = split_names(schemes or defaults.get("schemes", every))
    _show(experiment(options.sweep(cells(models, chosen, dofs, range(seeds), task), out)), out)


def _show(result: Any, out: Path) -> None:
    from lincon.tasks.experiments.sweeps.report import written

    Console().print(result.console())
    for note in result.notes:
        typer.echo(note)
    typer.echo(written(out))


def _dof(text: str) -> int | float:
    """ "4096" is a count, "0.1" and "1.0" are fractions."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise LinconError(f"dof is {text!r}; give a count such as 4096, or a fraction such as 0.1.")


def main() -> None:
    """Entry point of the command `lincon`."""
    try:
        app()
    except SystemExit as end:
        if (
            dist.is_initialized()
        ):  # an interpreter that ends in order aborts now and then while gloo's threads live
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        raise


if __name__ == "__main__":
    main()
