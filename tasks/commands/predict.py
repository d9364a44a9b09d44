"""Commands that apply a trained model to the user's pictures, or go on with a text."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Annotated

import typer

from lincon.errors import LinconError
from lincon.tasks.commands.checking import check_folder

Pictures = Annotated[list[Path], typer.Argument(help="Files of pictures.")]
Run = Annotated[Path, typer.Option(help="Folder of a training, as lincon train leaves it.")]

predict = typer.Typer(
    no_args_is_help=True, help="What a trained model sees in pictures of yours, or writes."
)


@predict.command()
def classification(
    images: Pictures,
    run: Run = Path("runs/train"),
    top: Annotated[int, typer.Option(min=1, help="How many classes, the likeliest first.")] = 5,
) -> None:
    """Print the likeliest classes of pictures, with their probabilities."""
    from lincon.tasks.classification.predict import predict

    for path, classes in zip(images, predict(images, run, top), strict=True):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in classes)
        typer.echo(f"{path}: {shares}")


@predict.command()
def pose(
    images: Pictures,
    run: Run = Path("runs/train"),
    box: Annotated[
        str,
        typer.Option(
            metavar="X,Y,SIDE",
            help="Square around the person, by its centre; the whole picture by default.",
        ),
    ] = "",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirror image.")] = False,
    min_score: Annotated[
        float, typer.Option(help="Joints with a lower score are not drawn.")
    ] = 0.1,
    out: Annotated[
        Path, typer.Option(help="Folder of the drawings and of the joints as JSON.")
    ] = Path("runs/predict"),
) -> None:
    """Draw the skeleton on pictures, and write the joints as JSON."""
    check_folder(out)
    from lincon.tasks.pose.predict import predict

    found = predict(images, run, out, parse_box(box), flip=flip, min_score=min_score)
    _print_files((each.drawing, each.numbers) for each in found)
    for each in found:
        if each.left_out:
            joints = "; ".join(f"{name} ({why})" for name, why in each.left_out.items())
            typer.echo(f"not drawn on {each.drawing}: {joints}")


@predict.command()
def indoor(
    images: Pictures,
    run: Run = Path("runs/train"),
    out: Annotated[Path, typer.Option(help="Folder of the depth and the normals as PNG.")] = Path(
        "runs/predict"
    ),
) -> None:
    """Write depth (16-bit PNG and a coloured view) and surface normals (PNG) of pictures."""
    check_folder(out)
    from lincon.tasks.indoor.predict import predict

    _print_files(predict(images, run, out))


@predict.command()
def language(
    prompt: Annotated[str, typer.Argument(help="The text so far; by default there is none.")] = "",
    run: Run = Path("runs/train"),
    count: Annotated[int, typer.Option(min=1, help="Bytes to write.")] = 400,
    temperature: Annotated[
        float, typer.Option(help="Near 0 the likeliest byte is always taken.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Go on with a text, byte by byte."""
    from lincon.tasks.language.predict import predict

    typer.echo(prompt + predict(prompt, run, count, temperature, seed))


def parse_box(text: str) -> tuple[float, float, float] | None:
    """A square in pixels, (x, y, side); None for an empty text.

    Raises:
        LinconError: the text is not of three numbers, or they make no square.

    >>> parse_box("320,240,400")
    (320.0, 240.0, 400.0)
    """
    if not text:
        return None
    try:
        x, y, side = map(float, text.split(","))
    except ValueError:
        raise LinconError(f"--box is {text!r}; give X,Y,SIDE in pixels, as 320,240,400.") from None
    if not (isfinite(x) and isfinite(y) and 0 < side < inf):
        raise LinconError(f"--box is {text!r}; the numbers must be finite, the side positive.")
    return x, y, side


def _print_files(written: Iterable[Sequence[Path]]) -> None:
    for files in written:
        typer.echo(f"written: {', '.join(map(str, files))}")
