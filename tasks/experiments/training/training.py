"""One training: a scheme on a model and a data set of a task, by Lightning."""

import gc
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lightning import Callback
from torch import nn

import lincon
from lincon.tasks.experiments.schemes.body import count_parameters
from lincon.tasks.experiments.schemes.scheme import Phase
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training import checkpoints, record
from lincon.tasks.experiments.training.fingerprints import fingerprints
from lincon.tasks.experiments.training.history import History
from lincon.tasks.experiments.training.learner import Learner, evaluate
from lincon.tasks.experiments.training.models import build, check_epochs, dof_of, scheme_of
from lincon.tasks.experiments.training.ranks import is_first
from lincon.tasks.experiments.training.recipe import Cell, Recipe, Setup, describe, open_data
from lincon.tasks.experiments.training.run import Run
from lincon.tasks.experiments.training.trainer import fit, make_logger


def train(
    recipe: Recipe,
    cell: Cell,
    folder: Path,
    setup: Setup | None = None,
    callbacks: Sequence[Callback] = (),
    *,
    resume: bool = False,
) -> tuple[nn.Module, Run]:
    """Train one cell, and save the model into ``folder``.

    Initialisation, order of the items and augmentation depend on the seed, not on the scheme.

    Args:
        recipe: how models are trained.
        cell: what is trained.
        folder: gets the model and the record and, until the training has ended, a checkpoint after
            every epoch.
        setup: where the data lie, the options of Lightning's Trainer, and logs.
        callbacks: of Lightning.
        resume: go on from the checkpoints in ``folder``. On a CPU the weights are, bit for bit,
            those of a training without the interruption.

    Returns:
        The trained model, and the result of the training.

    Raises:
        LinconError: nothing to resume from, or a training of another recipe; a cell that cannot be
            built.
    """
    training = Training(recipe, cell, folder, setup or Setup(), resume=resume)
    training.prepare()
    for number in range(len(training.scheme.phases)):
        training.train_phase(number, callbacks)
    return training.model, training.finish()


class Training:
    """The steps of one training: `prepare`, `train_phase` for every phase, `finish`.

    Args:
        recipe: how models are trained.
        cell: what is trained.
        folder: of the model, the record and the checkpoints.
        setup: where the data lie, the options of Lightning's Trainer, and logs.
        resume: whether ``folder`` holds this training, interrupted.

    Raises:
        LinconError: too few epochs for the scheme; data or a model that cannot be made.
    """

    def __init__(
        self, recipe: Recipe, cell: Cell, folder: Path, setup: Setup, *, resume: bool
    ) -> None:
        check_epochs(recipe, cell)
        self.recipe, self.cell, self.folder = recipe, cell, folder
        self.setup, self.resume = setup, resume
        self.scheme = scheme_of(cell)
        self.epochs = self.scheme.epochs(recipe.epochs)
        self.data = open_data(recipe, cell.seed, setup.root)
        self.model = build(cell, self.data.shape)
        self.dof = dof_of(cell, self.data.shape)
        self.description = {
            **describe(recipe, setup.trainer),
            **asdict(cell),
            "shape": list(self.data.shape),
            record.DATA_SET: self.data.described(),
            **fingerprints(recipe, cell, self.model, self.data),
        }
        self.checkpoints = record.checkpoint_paths(folder, len(self.scheme.phases))
        self.history = History()

    def prepare(self) -> None:
        """Make the folder ready, or check that it holds this very training, interrupted."""
        if self.resume:
            record.check_resumable(self.folder, self.description)
        else:
            record.begin(self.folder, self.description)

    def train_phase(self, number: int, callbacks: Sequence[Callback]) -> None:
        """Train a phase, or the rest of it; restore one that has ended from its checkpoint."""
        phase = self.scheme.phases[number]
        if phase.begin is not None:
            # The optimiser of the phase before may lie in a cycle of references. While it exists,
            # lincon warns of it when parameters are replaced.
            gc.collect()
            phase.begin(self.model, self.dof, self.data)
        first_epoch = sum(self.epochs[:number])
        learner = self._learner(phase, first_epoch)
        checkpoint = self.checkpoints[number]
        begun = self.resume and checkpoint.exists()
        # The next phase has a checkpoint only if this one has ended.
        following = self.checkpoints[number + 1 : number + 2]
        if begun and any(path.exists() for path in following):
            self._restore(learner, checkpoint)
        elif self.epochs[number]:
            self.data.first_epoch = first_epoch
            self._fit(learner, number, callbacks, checkpoint if begun else None)

    def finish(self) -> Run:
        """Save and measure the model, and write the record of a finished training."""
        if not self.epochs[-1]:
            # The last phases changed the model after it was last measured.
            self.history.replace_last_test(evaluate(self._learner(), self.data))
        file_bytes = lincon.save(self.model, self.folder / record.SAVED) if is_first() else 0
        run = Run(
            model=self.cell.model,
            scheme=self.cell.scheme,
            asked=self.cell.dof,
            seed=self.cell.seed,
            dof=self.scheme.dof(self.model),
            total=count_parameters(self.model),
            file_bytes=file_bytes,
            epoch_seconds=self.history.epoch_seconds,
            train_loss=self.history.train_loss,
            test=self.history.test,
            train=evaluate(self._learner(), self.data, train=True),
            note=self.data.note,
        )
        record.finish(self.folder, self.description)
        return run

    def _learner(self, phase: Phase | None = None, first_epoch: int = 0) -> Learner:
        make = find_task(self.cell.task).learner
        learner: Learner = make(
            self.model, self.data, self.recipe, phase, self.cell.seed, first_epoch
        )
        return learner

    def _fit(
        self, learner: Learner, number: int, callbacks: Sequence[Callback], begun: Path | None
    ) -> None:
        """Train a phase, from the checkpoint ``begun`` if it was interrupted."""
        checkpoint = self.checkpoints[number]
        loggers = [make_logger(log, self.folder, checkpoint.stem) for log in self.setup.logs]
        if begun is not None:
            # This names a damaged file; Lightning would raise whatever its bytes lead to.
            checkpoints.read(begun)
        every = [self.history, *callbacks, checkpoints.after_every_epoch(checkpoint)]
        options = {"logger": loggers or False, **self.setup.trainer}
        fit(learner, self.data, self.epochs[number], every, begun, options)

    def _restore(self, learner: Learner, checkpoint: Path) -> None:
        """Restore model and history as they were at the end of a phase."""
        state = checkpoints.read(checkpoint)
        learner.load_state_dict(state["state_dict"])
        self.history.load_state_dict(state["callbacks"][self.history.state_key])
