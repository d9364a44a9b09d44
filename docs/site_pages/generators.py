"""A page for each generator: what its docstrings say, a picture of G, and what was measured.

A docstring of a module says what G is, its source, its cost and when to use it. So a new generator
has a page as soon as it has a file and an example below, if rows and dof are not enough to make it.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator

import torch

from lincon import Generator
from lincon.generators import (
    Codebook,
    Identity,
    Lego,
    Mask,
    Matrix,
    Nullspace,
    Part,
    Ring,
    available,
    get,
)
from lincon.generators.nullspace import tied
from site_pages.choosing import accuracies
from site_pages.drawing import svg
from site_pages.markdown import table, with_spread
from site_pages.runs import Run, newest

ROWS, DOF = 64, 16
SCHEMES = {"rpg": "ring", "vanilla": "identity"}
"""Schemes that are called otherwise than the generator they are made of."""


def _codebook() -> Generator:
    torch.manual_seed(0)
    return Codebook.fit(torch.randn(ROWS), DOF)


def _lego() -> Generator:
    torch.manual_seed(0)
    select = torch.randint(4, (2, 8))
    return Lego(ROWS, DOF, select=select, coefficient=torch.randn(2, 8))


def _matrix() -> Generator:
    smooth = torch.exp(-((torch.arange(ROWS)[:, None] / 4 - torch.arange(DOF)) ** 2))
    return Matrix(ROWS, DOF, matrix=smooth)


EXAMPLES: dict[str, Callable[[], Generator]] = {
    "codebook": _codebook,
    "identity": lambda: Identity(DOF, DOF),
    "lego": _lego,
    "mask": lambda: Mask.of(Ring(ROWS, DOF), torch.arange(ROWS) % 3 > 0),
    "matrix": _matrix,
    "nullspace": lambda: Nullspace(ROWS, None, equalities=tied(DOF, ROWS // DOF)),
    "part": lambda: Part.of(Ring(ROWS, DOF + 8), torch.arange(DOF + 8) % 3 > 0),
}
"""Examples of generators that are made of more than rows and dof."""


def pages() -> Iterator[tuple[str, str]]:
    for name in available():
        cls = get(name)
        generator = EXAMPLES[name]() if name in EXAMPLES else cls(ROWS, DOF, seed=0)
        yield f"generators/{name}.svg", svg(generator)
        yield f"generators/{name}.md", _page(name, cls)


def _page(name: str, cls: type[Generator]) -> str:
    docstring = inspect.getdoc(sys.modules[cls.__module__]) or ""
    title, _, rest = docstring.partition("\n\n")
    lead = " ".join(title.split(":", 1)[1].split())
    picture = (
        f"```{{figure}} {name}.svg\n:alt: The matrix G of {name}\n\n"
        "G turned on its side: a column of the picture is a row of G, which makes one weight.\n"
        "Blue reads a free number, orange reads it with the other sign.\n```"
    )
    reference = f"```{{eval-rst}}\n.. autoclass:: lincon.generators.{cls.__name__}\n```"
    parts = [f"# {name}", lead[:1].upper() + lead[1:], picture, as_markdown(rest)]
    parts += [*_measured(name), "## Reference", reference]
    return "\n\n".join(parts) + "\n"


def as_markdown(docstring: str) -> str:
    """A docstring's paragraphs; one that is indented is a formula or code.

    >>> print(as_markdown("G is\\n\\n    G[i, j] = 1."))
    G is
    <BLANKLINE>
    ```text
    G[i, j] = 1.
    ```
    """
    parts = []
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith("    "):
            parts.append(f"```text\n{inspect.cleandoc(paragraph)}\n```")
        else:
            plain = paragraph.replace("``", "`").replace("*", r"\*")
            parts.append(re.sub(r"^(Cost|When to use):", r"**\1**:", plain))
    return "\n\n".join(parts)


def _measured(name: str) -> Iterator[str]:
    """Measured accuracies and speeds, where there are any."""
    rows = [line for run in newest() for line in [*_accuracy(run, name)]]
    if rows:
        yield "## Measured accuracy"
        yield table(("run", "scheme", "dof", "test accuracy %"), rows)
    if speeds := [line for run in newest() for line in _speed(run, name)]:
        yield "## Measured speed"
        yield "Unpack and adjoint together, as a multiple of copying the weights once."
        yield table(("run", "rows", "dof", "copies"), speeds)


def _accuracy(run: Run, name: str) -> Iterator[tuple[str, ...]]:
    for row in accuracies(run):
        scheme = row["scheme"]
        if SCHEMES.get(scheme, scheme) == name:
            accuracy = with_spread(row["accuracy"], row["spread"])
            yield _link(run), f"`{scheme}`", f"{row['dof']:,}", accuracy


def _speed(run: Run, name: str) -> Iterator[tuple[str, ...]]:
    for row in run.content.get("rows", []):
        if row["name"] == f"{name} unpack + adjoint":
            found = re.match(r"unpack, rows ([\d,]+), dof ([\d,]+), float32", row["group"])
            if found and row.get("reference"):
                yield _link(run), found[1], found[2], f"{row['median'] / row['reference']:.1f}"


def _link(run: Run) -> str:
    return f"[{run.name}](/generated/runs/{run.name}.md)"
