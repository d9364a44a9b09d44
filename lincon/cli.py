"""The command line: `lincon compare`, `lincon train`, `lincon inspect`. Only the commands import tasks."""

try:
    import typer
    from rich.console import Console
except ImportError:
    raise SystemExit("lincon: the command line is not installed: pip install 'lincon-torch[tasks]'") from None

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from typer.core import TyperGroup

import lincon
from lincon.errors import LinconError

UsageError: Any = typer.BadParameter.__mro__[1]  # of click, which newer versions of typer carry inside


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
        _end(f"{error.name} is not installed: pip install 'lincon-torch[tasks]'", 2)
    except (LinconError, OSError) as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        _end("interrupted; a comparison continues from its finished runs when called again", 130)


def _end(message: str, code: int) -> None:
    typer.echo(f"lincon: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    cls=OneLine,
    no_args_is_help=True,
    add_completion=False,
    help="Train neural networks under linear constraints.",
)

Model = Annotated[str, typer.Option(help="Name of the model: resnet-small, resnet-medium.")]
Data = Annotated[str, typer.Option(help="Name of the data set: digits.")]
Dof = Annotated[str, typer.Option(help="Free numbers: 4096 (a count) or 0.1 (a fraction of body weights).")]
Epochs = Annotated[int, typer.Option(help="Passes over the training images.")]
Threads = Annotated[int, typer.Option(min=1, help="Of torch, on the CPU; more than one pays for large images.")]


@app.command()
def compare(
    schemes: Annotated[str, typer.Option(help="Names with commas between; all by default.")] = "",
    model: Model = "resnet-small",
    data: Data = "digits",
    dof: Dof = "0.1",
    epochs: Epochs = 20,
    threads: Threads = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each scheme, with the seeds 0, 1, ...")] = 3,
    out: Annotated[Path, typer.Option(help="Folder of table.md, results.json, curves.png and runs/.")] = Path(
        "runs/compare"
    ),
) -> None:
    """Train schemes of sharing on equal terms and tabulate them; call again to continue."""
    from lincon.tasks.classification import compare, report
    from lincon.tasks.classification import schemes as known
    from lincon.tasks.classification.training import Recipe

    names = dict.fromkeys(name.strip() for name in schemes.split(",")) if schemes else known.SCHEMES
    torch.set_num_threads(threads)
    recipe = Recipe(model, data, _dof(dof), epochs)
    comparison = compare.compare(recipe, list(names), range(seeds), out)
    Console().print(report.console_table(comparison.table, comparison.title))
    typer.echo(f"written to {out}: table.md, results.json, curves.png")


@app.command()
def train(
    scheme: Annotated[str, typer.Option(help="Scheme of sharing.")] = "ring",
    model: Model = "resnet-small",
    data: Data = "digits",
    dof: Dof = "0.1",
    epochs: Epochs = 20,
    threads: Threads = 1,
    seed: Annotated[int, typer.Option(help="Of initialisation, G and the order of the images.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of model.safetensors.")] = Path("runs/train"),
) -> None:
    """Train one scheme and save the model."""
    from lincon.tasks.classification import training
    from lincon.tasks.classification.progress import EpochBar

    torch.set_num_threads(threads)
    recipe = training.Recipe(model, data, _dof(dof), epochs)
    out.mkdir(parents=True, exist_ok=True)
    with EpochBar(epochs) as bar:
        bar.describe(f"{scheme}, seed {seed}")
        trained, run = training.train(recipe, scheme, seed, [bar])
    size = lincon.save(trained, out / "model.safetensors")
    typer.echo(lincon.summary(trained))
    typer.echo(f"test accuracy {100 * run.accuracy:.2f} %; {size:,} bytes in {out / 'model.safetensors'}")


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="A file written by lincon.save.")]) -> None:
    """Say what a saved model's file holds."""
    typer.echo(lincon.inspect(file))


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
    app()


if __name__ == "__main__":
    main()
