"""Arguments that several commands take, and how their text is read."""

from pathlib import Path
from typing import Annotated

import typer

from lincon.errors import LinconError

CLASSIFICATION = "classification"
"""The task of commands that are not told another."""

Task = Annotated[str, typer.Argument(help="classification, pose, indoor or language.")]
Scheme = Annotated[
    str,
    typer.Option(
        help="Scheme of sharing, or any generator, also with options: ring:tile=1, or "
        "rpg:offset=seed for Ŵ = W₀ + G W with a W₀ of the seed."
    ),
]
Schemes = Annotated[
    str,
    typer.Option(
        help="Names of schemes and generators, also with options (rpg,ring:tile=1), separated by "
        "commas; the task's own choice by default. lincon schemes lists them."
    ),
]
FUNCTION = (
    "package.module:name, a function whose code runs: it gets those of channels, classes and size "
    "(height and width) that it has arguments for, and returns a torch.nn.Module that makes "
    "logits; what may be constrained is its submodule body, or all layers but the first and the "
    "last. Other arguments whose default is a number are options (module:net:depth=3); width is a "
    "factor, 1 by default, for the scheme small."
)
"""What a model function is given, and what it makes."""

Models = Annotated[
    str,
    typer.Option(
        help=f"Name, also with options (vit-tiny:patch=2); or {FUNCTION} "
        "Several are separated by commas."
    ),
]
Dofs = Annotated[
    str,
    typer.Option(
        help="Free numbers: 4096 (a count) or 0.1 (a fraction); several are separated by commas."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each, with the seeds 0, 1, ...")]
Results = Annotated[
    Path | None,
    typer.Option(help="Folder of table.md, results.json, picture.png, picture.svg and runs/."),
]
ObjectNet = Annotated[
    Path | None, typer.Option(help="Folder of ObjectNet, for models of ImageNet.")
]
Root = Annotated[
    Path | None, typer.Option(help="Folder of the data set, for one that is not embedded.")
]
Trained = Annotated[
    Path,
    typer.Argument(help="Folder of a trained model, as lincon train, prune and quantize write it."),
]


def parse_dof(text: str) -> int | float:
    """A count or a fraction of free numbers.

    Raises:
        LinconError: the text is no number.

    >>> parse_dof("4096"), parse_dof("0.1"), parse_dof("1.0")
    (4096, 0.1, 1.0)
    """
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise LinconError(f"dof is {text!r}; give a count such as 4096, or a fraction such as 0.1.")


def split_names(text: str) -> list[str]:
    """The names between commas, each once. A model's own options stay with it.

    >>> split_names("vit-tiny:patch=2,depth=6, resnet18")
    ['vit-tiny:patch=2,depth=6', 'resnet18']
    """
    names: list[str] = []
    for part in text.split(","):
        part = part.strip()
        is_option = "=" in part and ":" not in part
        if is_option and names:
            names[-1] += f",{part}"
        elif part:
            names.append(part)
    return list(dict.fromkeys(names))
