"""In search of a better default than the ring: variants, all tuned alike, on training images that are held out.

    python -m benchmarks.default_search --plan          # the trainings and the expected hours
    python -m benchmarks.default_search --out FOLDER    # called again, it goes on where it was

The test set is not looked at: rates are picked with three seeds, and variants compared with others, on
the same held-out images. What wins here is a candidate; a comparison on the test set, with seeds of its
own, says whether it wins there. The network and the recipe are those of decides-fashion-mnist-2026-11-27.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import lincon
from lincon.counter import bits, key, row_signs
from lincon.generators import Ring, register
from lincon.generators.one_nonzero import Entries, OneNonzero
from lincon.maps.permutation import Permutation
from lincon.recycling import keep_pages
from lincon.tasks.classification.schemes import SCHEMES, proportional
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.schemes.body import Architecture, body_weights
from lincon.tasks.experiments.schemes.scheme import Phase, Scheme, constrained, vanilla
from lincon.tasks.experiments.sweeps.compare import compare
from lincon.tasks.experiments.sweeps.grid import FIRST_SEED, Grid
from lincon.tasks.experiments.sweeps.plan import preview
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tune import trials
from lincon.tasks.experiments.training.recipe import Recipe, Setup, cells

MODEL, DATA = "resnet14:stride=2", "fashion-mnist:size=16"
DOFS = 0.01, 0.002
HELD_OUT = 10_000
RATES = 0.1, 0.3, 1.0
SEEDS = 4
KERNEL = 9
"""Weights of a 3 x 3 kernel."""
_WORD_STREAM, _SIGN_STREAM, _KERNEL_STREAM = 900, 901, 902


@register
class Balanced(OneNonzero):
    """A ring whose signs are a Walsh function of the lap, so that an entry's add up to nearly 0.

    >>> signs = Balanced(rows=64, dof=8).dense().sum(0)
    >>> signs.abs().max() <= 8
    tensor(True)
    """

    name = "trial-balanced"
    disjoint = True

    def entries(self, rows: Tensor) -> Entries:
        index, _ = Ring(self.rows, self.dof, self.seed, sign=False).entries(rows)
        lap, word = rows // self.dof, bits(key(self.seed, _WORD_STREAM), index)
        parity = torch.zeros_like(lap)
        for place in range(40):  # of the lap's binary digits, and beyond
            parity ^= (lap >> place) & (word >> place) & 1
        return index, 1 - 2 * parity


@register
class Kernels(OneNonzero):
    """A vector that is read in whole 3 x 3 kernels, dealt as a deck of cards.

    Args:
        sign: whether every kernel has a keyed sign.
    """

    name = "trial-kernels"
    disjoint = True

    def __init__(self, rows: int, dof: int, seed: int = 0, *, sign: bool = True) -> None:
        super().__init__(rows, dof, seed)
        self.sign = sign

    def options(self) -> dict[str, bool]:
        return {"sign": self.sign}

    def entries(self, rows: Tensor) -> Entries:
        deck = Permutation(-(-self.rows // KERNEL), key(self.seed, _KERNEL_STREAM))
        sign = row_signs(key(self.seed, _SIGN_STREAM), rows // KERNEL) if self.sign else None
        return (deck(rows // KERNEL) * KERNEL + rows % KERNEL) % self.dof, sign


def by_fan_in(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring a layer, DoF in proportion to the weights of one filter."""
    model = architecture()
    names = body_weights(model)
    filters = [model.get_parameter(name)[0].numel() for name in names]
    rings = dict(zip(names, proportional(dof, filters), strict=True))
    lincon.constrain(model, "ring", seed=seed, where=names, scope=rings)
    return model


def project(model: nn.Module, dof: int, data: Data) -> None:
    """Constrain a trained model by a ring, fitted to its weights."""
    lincon.constrain(model, "ring", dof=dof, where=body_weights(model), init="project")


TRIALS: dict[str, Scheme] = {
    "rpg": SCHEMES["rpg"],
    "rpg-plain": SCHEMES["rpg-plain"],
    "ring, single entries": constrained("ring", tile=1),
    "ring, W0 drawn": constrained("ring", offset="seed"),
    "ring, balanced signs": constrained("trial-balanced"),
    "whole kernels": constrained("trial-kernels"),
    "whole kernels, no sign": constrained("trial-kernels", sign=False),
    "ring a layer, by fan-in": Scheme(by_fan_in),
    "ring, projected": Scheme(
        vanilla,
        (Phase(1 / 6), Phase(5 / 6, project)),
        about="One epoch dense, then a ring that is fitted to it.",
    ),
}
"""What is tried, by the name of its line. rpg is what the others are compared with."""


def sweep_of(options: argparse.Namespace) -> Sweep:
    """All comparisons, on seeds that no comparison on the test set has."""
    recipe = Recipe(
        data=DATA, epochs=options.epochs, images=options.images, held_out=options.held_out
    )
    first = FIRST_SEED + 100
    every = cells([options.model], list(TRIALS), options.dof, range(first, first + options.seeds))
    setup = Setup(options.root, quiet=True)
    grid = Grid({"learning_rate": options.rates}, options.held_out)
    return Sweep(recipe, every, options.out, setup, command="default_search", grid=grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="folder of the data; Debian's needs none")
    parser.add_argument("--out", type=Path, default=Path("runs/default-search"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dof", type=float, nargs="+", default=DOFS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--plan", action="store_true", help="train nothing, say how long it takes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_pages()
    SCHEMES.update(TRIALS)
    sweep = sweep_of(options)
    if options.plan:
        print(preview(*(trial for _, trial in trials(sweep)), sweep))
        return
    result = compare(sweep)
    print(replace(result, title=f"{result.title}, on held-out images").markdown())


if __name__ == "__main__":
    main()
