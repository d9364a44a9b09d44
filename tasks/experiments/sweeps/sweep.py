"""Trainings of many cells on one recipe, kept as they finish: the basis of every experiment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning import Callback
from torch import nn

from lincon import LinconError
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.files import FILES as FILES
from lincon.tasks.experiments.files import PREDICTIONS as PREDICTIONS
from lincon.tasks.experiments.files import RESULTS
from lincon.tasks.experiments.importing import WithGiven
from lincon.tasks.experiments.output import check_replaceable, mark_of
from lincon.tasks.experiments.sweeps.earlier import check_same
from lincon.tasks.experiments.sweeps.grid import Grid, Settings, Trial
from lincon.tasks.experiments.sweeps.store import Store
from lincon.tasks.experiments.task import Measure, find_task
from lincon.tasks.experiments.training.fingerprints import fingerprints
from lincon.tasks.experiments.training.models import build, check_epochs, load
from lincon.tasks.experiments.training.progress import EpochBar
from lincon.tasks.experiments.training.ranks import by_torchrun, exit_unless_first
from lincon.tasks.experiments.training.recipe import Cell, Recipe, Setup, describe, open_data
from lincon.tasks.experiments.training.record import check_free, check_no_training, interrupted
from lincon.tasks.experiments.training.run import Run
from lincon.tasks.experiments.training.training import train

SEVERAL_PROCESSES = "strategy", "devices", "num_nodes"
"""Flags of the Trainer with which one training has several processes."""


@dataclass(frozen=True)
class Sweep:
    """The trainings of an experiment.

    Args:
        recipe: what all trainings have in common.
        cells: the trainings.
        out: folder of the results; finished runs are kept in ``out/runs``.
        setup: where the data lie, the options of Lightning's Trainer, and logs.
        parallel: trainings at a time. Several run by Ray, each in a process of its own, with the
            same results.
        command: whose results these are; those of another are not replaced.
        grid: settings that are to be tuned, for every scheme alike.
        settings: by `group_name`, the fields of the recipe that were picked for those cells.
        trials: by which they were picked.
    """

    recipe: Recipe
    cells: Sequence[Cell]
    out: Path
    setup: Setup = field(default_factory=Setup)
    parallel: int = 1
    command: str = "compare"
    grid: Grid | None = None
    settings: Mapping[str, Settings] = field(default_factory=dict)
    trials: Sequence[Trial] = ()

    def run(self) -> list[Run]:
        """Train the cells that are missing, and return all runs in the order of the cells.

        Called again, an interrupted sweep continues: the training that was cut goes on from its
        last epoch, and cells that were added are trained.

        Raises:
            LinconError: a dof that a scheme refuses, or missing data; several trainings at a time
                of which each would have several processes; in ``out``, runs of another recipe or
                made of other code, tensors or items, a training, results of which these are not a
                continuation, or files that this command did not write and would replace.
        """
        for _ in self.rounds():
            pass
        exit_unless_first()
        return self.finished()

    def rounds(self) -> Iterator[list[Cell]]:
        """`run`, with a stop each time another seed is whole, and one before the first training.

        Yields:
            The cells of all seeds whose trainings have ended; none twice, and never no cell.
        """
        missing = self.check()
        epochs = self.recipe.epochs
        done = len(self.cells) - len(missing)
        quiet = self.setup.quiet
        with EpochBar(len(self.cells) * epochs, done * epochs, quiet=quiet) as bar:
            left = list(missing)
            if whole := self._whole(left):
                yield whole
            for cell, run in self._trained(missing, bar):
                self.store.put(cell, run, self.fingerprints(cell), self.settings_of(cell))
                left.remove(cell)
                if cell.seed not in {other.seed for other in left}:
                    yield self._whole(left)

    def _whole(self, left: Sequence[Cell]) -> list[Cell]:
        """The cells of seeds of which none is left."""
        seeds = {cell.seed for cell in left}
        return [cell for cell in self.cells if cell.seed not in seeds]

    def finished(self) -> list[Run]:
        """The runs that have ended, in the order of the cells."""
        return self.runs_of(self.cells)

    def runs_of(self, cells: Sequence[Cell]) -> list[Run]:
        """The runs of some cells that have ended, in their order."""
        runs = [self.store.get(cell) for cell in cells]
        return [run for run in runs if run is not None]

    def check(self) -> list[Cell]:
        """The cells that are to be trained; raises what `run` does before the first training."""
        self._check_parallel()
        for cell in self.cells:
            self.store.check(cell, self.fingerprints(cell), self.settings_of(cell))
        missing = [cell for cell in self.cells if not self.store.get(cell)]
        self._check_outputs(missing)
        return missing

    def _check_parallel(self) -> None:
        if self.parallel == 1:
            return
        several = [f"--trainer.{name}" for name in SEVERAL_PROCESSES if name in self.setup.trainer]
        if by_torchrun():
            several.append("torchrun")
        if several:
            raise LinconError(f"--parallel {self.parallel} and {several[0]} exclude each other.")

    def fingerprints(self, cell: Cell) -> dict[str, str]:
        """Of what the training of a cell is made of: the code, the tensors, the items."""
        return self._fingerprints[group_name(cell)]

    def settings_of(self, cell: Cell) -> Settings | None:
        """What was picked for a cell; None before it is."""
        return self.settings.get(group_name(cell)) if self.grid else {}

    def recipe_of(self, cell: Cell) -> Recipe:
        """The recipe with what was picked for a cell."""
        return replace(self.recipe, **self.settings.get(group_name(cell), {}))

    @cached_property
    def _fingerprints(self) -> dict[str, dict[str, str]]:
        """Build every cell before the first is trained, so that a refusal comes at once."""
        found = {}
        for cell in self.cells:
            name = group_name(cell)
            if name not in found:
                check_epochs(self.recipe, cell)
                model = build(cell, self.data.shape)
                found[name] = fingerprints(self.recipe, cell, model, self.data)
        return found

    def _check_outputs(self, missing: Sequence[Cell]) -> None:
        """Refuse before hours of training, not after, to replace what others wrote."""
        check_no_training(self.out)
        check_same(self.out / RESULTS, self.mark, self.described, self.cells)
        for name in (*FILES, PREDICTIONS):
            check_replaceable(self.out / name, self.mark)
        for cell in missing:
            check_free(self.store.place(cell))

    def _trained(self, missing: Sequence[Cell], bar: EpochBar) -> Iterator[tuple[Cell, Run]]:
        if self.parallel == 1:
            for cell in missing:
                bar.describe(cell.name)
                yield cell, self.train(cell, [bar])
            return
        from lincon.tasks.experiments.sweeps.parallel import side_by_side

        bar.describe(f"{self.parallel} at a time")
        bar.start()
        work = WithGiven(replace(self, parallel=1).train)
        for cell, run in side_by_side(work, missing, self.parallel):
            bar.advance(self.recipe.epochs)
            yield cell, run

    def train(self, cell: Cell, callbacks: Sequence[Callback] = ()) -> Run:
        """Train one cell, or go on with it if it was interrupted.

        Raises:
            LinconError: whatever `training.train` refuses; the message names the cell.
        """
        place = self.store.place(cell)
        try:
            _, run = train(
                self.recipe_of(cell),
                cell,
                place,
                self.setup,
                callbacks,
                resume=interrupted(place),
            )
        except LinconError as error:
            raise type(error)(f"{cell.name}: {error}") from error
        return run

    def load(self, cell: Cell) -> nn.Module:
        """The trained model of a cell whose training has ended."""
        return load(cell, self.data.shape, self.store.model(cell))

    @cached_property
    def data(self) -> Data:
        """The data set, with the order of seed 0."""
        data: Data = open_data(self.recipe, 0, self.setup.root)
        return data

    @cached_property
    def store(self) -> Store:
        """The finished runs."""
        return Store(self.out / "runs", self.described)

    @property
    def mark(self) -> str:
        """Stands in the files of the results."""
        return mark_of(self.command)

    @property
    def described(self) -> dict[str, Any]:
        """What all runs have in common, as plain JSON: the recipe and the Trainer's options.

        Fields that were picked have the values to choose from.
        """
        described = describe(self.recipe, self.setup.trainer)
        return described | self.grid.described if self.grid else described

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the task measures."""
        return find_task(self.recipe.task).measures

    @property
    def grains(self) -> dict[str, float]:
        """The smallest steps of measures that count test items, in the units of their labels."""
        items = len(self.data.test_set)
        return {each.name: each.factor / items for each in self.measures if each.counts_items}

    @property
    def title(self) -> str:
        """What was trained, in one line."""
        several = len({cell.seed for cell in self.cells}) > 1
        return f"{self.subject}, mean ± standard deviation" if several else self.subject

    @property
    def subject(self) -> str:
        """What is trained, on what, how long and how often, in one line."""
        seeds = len({cell.seed for cell in self.cells})
        models = ", ".join(dict.fromkeys(cell.model for cell in self.cells))
        images = "" if self.recipe.images is None else f" ({self.recipe.images:,} training images)"
        epochs = f"{self.recipe.epochs} epoch{'' if self.recipe.epochs == 1 else 's'}"
        often = f"{seeds} seed{'' if seeds == 1 else 's'}"
        return f"{models} on {self.recipe.data}{images}, {epochs}, {often}"


def group_name(cell: Cell) -> str:
    """The name of cells that differ in their seeds only. It tells a dof of 1 from one of 1.0."""
    return replace(cell, seed=0).name
