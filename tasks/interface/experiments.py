"""Experiments as functions: many trainings, their table and their picture, without files.

Each takes the model and the data by name or as objects, the schemes, DoF and seeds that are
combined, and `Settings` by keyword.

**The model** is a name ("resnet-small", "vit-tiny:patch=2", "package.module:function") or a
function, which gets those of `channels`, `classes` and `size` that it has arguments for, and returns
a `torch.nn.Module` that makes logits. What may be constrained is its submodule `body`, or all layers
but the first and the last. A list of models is compared.

**The data** are a name ("digits", "my.npz", "package.module:function"); arrays or tensors (x_train,
y_train, x_test, y_test), (x, y), or a dictionary of these names; a pair of `torch.utils.data.Dataset`
of (image, label); a LightningDataModule; or a function that returns one of these.

Without ``out`` nothing is left on the disk. With it, table, numbers, picture and trained models are
written there, and another call with the same arguments continues or reads them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lincon import Generator, LinconError
from lincon.tasks.experiments.sweeps import compare as comparing
from lincon.tasks.experiments.sweeps import gap
from lincon.tasks.experiments.sweeps.auto import Auto
from lincon.tasks.experiments.sweeps.grid import Grid
from lincon.tasks.experiments.sweeps.plan import preview
from lincon.tasks.experiments.sweeps.report import Result
from lincon.tasks.experiments.sweeps.statistics import LOOKS
from lincon.tasks.experiments.sweeps.sweep import Sweep
from lincon.tasks.experiments.sweeps.tune import trials
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training.recipe import Cell, cells
from lincon.tasks.interface.defaults import (
    CONTRASTED,
    CONTRASTED_DOF,
    SCALED,
    SCALED_DOF,
    SEEDS,
)
from lincon.tasks.interface.given import name_of_data, name_of_model, name_of_scheme
from lincon.tasks.interface.settings import Settings

__all__ = [
    "Auto",
    "Grid",
    "Result",
    "Settings",
    "compare",
    "convergence",
    "generalization",
    "scaling",
]

Dof = int | float
Scheme = str | type[Generator]
Schemes = Scheme | Sequence[Scheme]
Work = Callable[[Sweep], Result]


@dataclass(frozen=True)
class Combinations:
    """What an experiment trains: every combination of these; None stands for the task's own."""

    models: Any
    data: Any
    schemes: Schemes | None
    dof: Dof | Sequence[Dof] | None
    seeds: int | Sequence[int]


def compare(
    model: Any = None,
    data: Any = None,
    *,
    schemes: Schemes | None = None,
    dof: Dof | Sequence[Dof] | None = None,
    seeds: int | Sequence[int] | Auto = SEEDS,
    **settings: Any,
) -> Result:
    """Train schemes of sharing on equal terms: same model, data, schedule, seeds and DoF.

    Args:
        model: a name, a function, or a list of them; by default the task's own.
        data: a name, arrays, data sets or a function; by default the task's embedded ones.
        schemes: names, also of generators and with options ("ring:tile=1"), or generator classes.
        dof: free numbers in the body: counts (4096) or fractions (0.1).
        seeds: how many runs of each, with the seeds 0, 1, ...; or the seeds; or what chooses their
            number, as in ``Auto(hours=2)``.
        settings: of `Settings`, such as epochs, learning_rate, out; ``tune`` says what is tried first
            for every scheme alike, on training items that are held out, as in
            ``Grid({"learning_rate": [0.05, 0.1]}, held_out=1000)``.

    Returns:
        A result, which shows itself as a table: ``.rows`` for pandas, ``.plot()``, ``.notes``.

    Raises:
        LinconError: an unknown name, a dof that a scheme refuses, data that cannot be read; see
            `Sweep.run`.

    >>> import torch
    >>> from torch import nn
    >>> def net(channels, classes):
    ...     flat = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 8), nn.ReLU())
    ...     return nn.Sequential(flat, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, classes))
    >>> x, y = torch.rand(40, 1, 4, 4), torch.arange(40) % 2
    >>> result = compare(net, (x, y), schemes=["vanilla", "ring"], dof=0.5, seeds=1, epochs=1, quiet=True)
    >>> [(row["scheme"], row["dof"]) for row in result.rows]
    [('vanilla', 64), ('ring', 32)]
    """
    auto, number = (seeds, LOOKS[-1]) if isinstance(seeds, Auto) else (None, seeds)
    grid = Combinations(model, data, schemes, dof, number)

    def work(sweep: Sweep) -> Result:
        return comparing.compare(sweep, auto)

    return _run("compare", work, grid, settings)


def scaling(
    model: Any = None,
    data: Any = None,
    *,
    scheme: Scheme = "rpg",
    dof: Sequence[Dof] = SCALED_DOF,
    predict: int | None = None,
    seeds: int | Sequence[int] = SEEDS,
    **settings: Any,
) -> Result:
    """Fit laws of the score against DoF to a sweep.

    Args:
        model, data, seeds, settings: as those of `compare`.
        scheme: one scheme.
        dof: at least four.
        predict: a DoF, among them, at which the score is predicted.

    Raises:
        LinconError: what `compare` refuses; too few DoF, or a prediction outside of them.
    """
    from lincon.tasks.classification.studies import scaling

    def work(sweep: Sweep) -> Result:
        return scaling.scaling(sweep, predict)

    if model is None and Settings.of(settings).task == "classification":
        model = SCALED
    return _run("scaling", work, Combinations(model, data, scheme, dof, seeds), settings)


def convergence(
    model: Any = None,
    data: Any = None,
    *,
    schemes: Schemes = CONTRASTED,
    dof: Dof | Sequence[Dof] = CONTRASTED_DOF,
    seeds: int | Sequence[int] = SEEDS,
    **settings: Any,
) -> Result:
    """Compare with vanilla how many steps of classification schemes take to an accuracy.

    The arguments are those of `compare`; vanilla must be among the schemes.
    """
    from lincon.tasks.classification.studies import convergence

    grid = Combinations(model, data, schemes, dof, seeds)
    return _run("convergence", convergence.convergence, grid, settings)


def generalization(
    model: Any = None,
    data: Any = None,
    *,
    schemes: Schemes | None = None,
    dof: Dof | Sequence[Dof] | None = None,
    seeds: int | Sequence[int] = SEEDS,
    objectnet: str | Path | None = None,
    **settings: Any,
) -> Result:
    """Measure the gap between training and test; of classification, also on shifted images.

    Args:
        model, data, schemes, dof, seeds, settings: as those of `compare`.
        objectnet: folder of ObjectNet, for models of ImageNet, instead of shifted images.

    Raises:
        LinconError: what `compare` refuses; images of which nothing says what is black and white;
            ObjectNet with another task or data set.
    """
    task = Settings.of(settings).task
    if task != "classification":
        if objectnet is not None:
            raise LinconError(f"--objectnet is of classification, not of {task}; leave it out.")
        return _run(
            "generalization", gap.gap, Combinations(model, data, schemes, dof, seeds), settings
        )
    from lincon.tasks.classification.studies import generalization

    def work(sweep: Sweep) -> Result:
        return generalization.generalization(sweep, None if objectnet is None else Path(objectnet))

    schemes = CONTRASTED if schemes is None else schemes
    grid = Combinations(model, data, schemes, CONTRASTED_DOF if dof is None else dof, seeds)
    return _run("generalization", work, grid, settings)


def _run(command: str, work: Work, grid: Combinations, settings: dict[str, Any]) -> Result:
    """Do the work of an experiment on the sweep of its combinations."""
    chosen = Settings.of(settings)
    with ExitStack() as names, _folder(chosen) as out:
        every = _cells(grid, chosen.task, names)
        recipe = chosen.recipe(name_of_data(grid.data, names))
        return run(command, work, recipe, every, replace(chosen, out=out))


def run(command: str, work: Work, recipe: Any, every: Sequence[Cell], settings: Settings) -> Result:
    """Do the work on the trainings ``every``, or say what it would be; ``settings.out`` is a folder."""
    out = settings.folder()
    assert out is not None
    sweep = Sweep(recipe, every, out, settings.setup(), settings.parallel, command, settings.tune)
    with _threads(settings.threads):
        if settings.dry_run:
            return preview(*(trial for _, trial in trials(sweep)), sweep)
        result = work(sweep)
        return replace(result, runs=result.runs or sweep.finished())


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Torch computes with so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """The folder of the results, or a temporary one."""
    if (folder := settings.folder()) is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


def _cells(grid: Combinations, task: str, names: ExitStack) -> list[Cell]:
    """Every combination; what is not given is the task's own choice."""
    defaults = find_task(task).defaults
    every_scheme = ",".join(find_task(task).schemes)
    models = _listed(grid.models, [defaults["model"]])
    schemes = _listed(grid.schemes, defaults.get("schemes", every_scheme).split(","))
    seeds = range(grid.seeds) if isinstance(grid.seeds, int) else grid.seeds
    return cells(
        models=[name_of_model(each, task, names) for each in models],
        schemes=[name_of_scheme(each, names) for each in schemes],
        dofs=_listed(grid.dof, [_number(text) for text in defaults["dof"].split(",")]),
        seeds=seeds,
        task=task,
    )


def _listed(given: Any, default: list[Any]) -> list[Any]:
    """One thing or several, as a list; ``default`` for None."""
    if given is None:
        return default
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def _number(text: str) -> Dof:
    return float(text) if "." in text else int(text)
