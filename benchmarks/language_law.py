"""Bits per byte against degrees of freedom: the law of each scheme, on a book.

    python -m benchmarks.language_law --plan --root HTML     # the cells and the expected hours; nothing is trained
    python -m benchmarks.language_law --root HTML --out FOLDER
    python -m benchmarks.language_law --root HTML --out FOLDER --render

HTML is the folder of `lincon train language --data handbook`; Debian's package needs no --root. Every
cell is a training as `lincon compare` makes it, kept in FOLDER/runs. Called again, the script goes on
where it was; with --render it only tabulates and draws the cells that are there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lincon.recycling import keep_pages
from lincon.tasks.classification.studies.law_picture import picture
from lincon.tasks.classification.studies.laws import Fit, as_json, fit
from lincon.tasks.classification.studies.scaling import by_model
from lincon.tasks.commands.printing import print_plan
from lincon.tasks.experiments.sweeps.compare import summarise
from lincon.tasks.experiments.sweeps.report import Result
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.training.recipe import Recipe, Setup, cells
from lincon.tasks.experiments.training.run import Run
from lincon.tasks.language.learner import MEASURES
from lincon.tasks.language.task import PRESETS

SCHEMES = "rpg", "random", "hash", "sparse", "kronecker", "fastfood", "small"
DOFS = 0.02, 0.05, 0.1, 0.2, 0.5
BITS = MEASURES[0]


def sweep_of(options: argparse.Namespace) -> Sweep:
    """All trainings; seeds change last, so that what is there is whole rounds."""
    recipe = Recipe("language", **{**PRESETS["handbook"], "epochs": options.epochs})
    every = cells([options.model], options.schemes, options.dof, range(options.seeds), "language")
    setup = Setup(options.root, quiet=True)
    return Sweep(recipe, every, options.out, setup, command="language_law")


def by_scheme(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each scheme."""
    return {
        scheme: [run for run in runs if run.scheme == scheme]
        for scheme in dict.fromkeys(run.scheme for run in runs)
    }


def laws(runs: Sequence[Run], places: int) -> dict[str, Fit]:
    """The power law of each scheme that has been trained at enough DoF.

    ``places``: how many bytes of the test part are predicted.
    """
    found = {}
    for scheme, own in by_scheme(runs).items():
        dof, saved = by_model(own, _saved)[own[0].model]
        if len(set(dof)) >= 3:
            found[scheme] = fit("power", dof, saved, places)
    return found


def result_of(sweep: Sweep, runs: Sequence[Run]) -> Result:
    """The table of all runs, with the laws as notes and a picture of them."""
    places = len(sweep.data.test_set) * sweep.data.context
    found = laws(runs, places)
    table = summarise(runs, f"Bits per byte against DoF: {sweep.title}", sweep.measures)
    points = {
        scheme: by_model(own, _saved)[own[0].model] for scheme, own in by_scheme(runs).items()
    }
    figure = picture(points, found, table.title, f"test {BITS.label}", BITS.span)
    numbers: dict[str, Any] = {"laws": {scheme: as_json(law) for scheme, law in found.items()}}
    notes = [f"{scheme}: {_in_words(law)}" for scheme, law in found.items()]
    return Result(table.title, table.header, table.rows, numbers, figure, notes)


def _saved(run: Run) -> float:
    """The part of eight bits that a run saves."""
    return BITS.share(run.score)


def _in_words(law: Fit) -> str:
    (low, high), k = law.intervals["k"], law.parameters["k"]
    formula = f"bits per byte = 8 x {law.parameters['c']:.4g} dof^-k, k = {k:.4f}"
    return f"{formula} [{low:.4f}, {high:.4f}], rms {BITS.span * law.residual:.4f} bits."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder html of debian-handbook")
    parser.add_argument("--out", type=Path, default=Path("runs/language-law"))
    parser.add_argument("--model", default="gpt-micro")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES)
    parser.add_argument("--dof", type=float, nargs="+", default=DOFS, help="of the blocks' weights")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plan", action="store_true", help="train nothing, say how long it takes")
    parser.add_argument(
        "--render", action="store_true", help="train nothing, tabulate what is there"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_pages()
    sweep = sweep_of(options)
    if options.plan:
        print_plan(sweep)
        return
    runs = sweep.finished() if options.render else sweep.run()
    result = result_of(sweep, runs)
    result.write(sweep, runs)
    print(result.markdown())


if __name__ == "__main__":
    main()
