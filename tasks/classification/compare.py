"""Compare schemes of sharing on equal terms: same model, data, schedule, seeds and DoF."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lincon.tasks.classification.curves import picture
from lincon.tasks.classification.data import DATA
from lincon.tasks.classification.progress import EpochBar
from lincon.tasks.classification.provenance import provenance
from lincon.tasks.classification.report import Line, lines, markdown
from lincon.tasks.classification.store import Store
from lincon.tasks.classification.training import Recipe, Run, build, train
from lincon.tasks.classification.writing import write_whole


@dataclass(frozen=True)
class Comparison:
    """The runs of several schemes on one recipe."""

    recipe: Recipe
    runs: list[Run]

    @property
    def title(self) -> str:
        """What was compared, in one line."""
        seeds = len({run.seed for run in self.runs})
        spread = f"{seeds} seeds, mean ± standard deviation" if seeds > 1 else "1 seed"
        return f"{self.recipe.model} on {self.recipe.data}, {self.recipe.epochs} epochs, {spread}"

    @property
    def table(self) -> list[Line]:
        """A line per scheme."""
        return lines(self.runs)

    def write(self, out: Path) -> None:
        """Write `results.json`, `curves.png` and `table.md` into ``out``, each whole or not at all."""
        results = {
            "recipe": asdict(self.recipe),
            "table": [asdict(line) for line in self.table],
            "runs": [asdict(run) for run in self.runs],
            **provenance(),
        }
        write_whole(out / "results.json", json.dumps(results, indent=1))
        write_whole(out / "curves.png", picture(self.runs, self.title))
        write_whole(out / "table.md", markdown(self.table, self.title))


def compare(recipe: Recipe, schemes: Sequence[str], seeds: Sequence[int], out: Path) -> Comparison:
    """Train every scheme with every seed, and write table, numbers and picture into ``out``.

    Finished runs are kept in ``out/runs``: an interrupted comparison continues there when called again, and
    one with more schemes or seeds trains only what is new.

    Raises:
        LinconError: an unknown scheme, a dof that a scheme refuses, or runs of another recipe in ``out``.
    """
    for scheme in schemes:  # refuse before the first training, not after the fifth
        build(recipe, scheme, DATA[recipe.data], seed=0)
    store = Store(out / "runs", recipe)
    _train_missing(store, recipe, [(scheme, seed) for seed in seeds for scheme in schemes])
    runs = [run for scheme in schemes for seed in seeds if (run := store.get(scheme, seed))]
    comparison = Comparison(recipe, runs)
    comparison.write(out)
    return comparison


def _train_missing(store: Store, recipe: Recipe, wanted: Sequence[tuple[str, int]]) -> None:
    missing = [pair for pair in wanted if not store.get(*pair)]
    done = len(wanted) - len(missing)
    with EpochBar(len(wanted) * recipe.epochs, done * recipe.epochs) as bar:
        for scheme, seed in missing:
            bar.describe(f"{scheme}, seed {seed}")
            _, run = train(recipe, scheme, seed, [bar])
            store.put(run)
