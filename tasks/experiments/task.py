"""What a task is to an experiment: data, models, schemes of sharing, and measures, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import nn

from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.names import choose, named
from lincon.tasks.experiments.schemes.body import Architecture, body_weights, count_parameters
from lincon.tasks.experiments.schemes.scheme import Scheme
from lincon.tasks.experiments.sweeps.tables import PaperTable

TASKS = {name: f"lincon.tasks.{name}.task" for name in ("classification", "pose", "indoor")}
"""Modules by name of the task, each with its `TASK`."""


@dataclass(frozen=True)
class Measure:
    """A number that models are judged by; shown as ``label``, ``factor`` times what is stored.

    ``higher_is_better``: whether more is better.
    """

    name: str
    label: str
    factor: float = 100
    higher_is_better: bool = True

    def shown(self, values: Mapping[str, float]) -> str:
        """This measure among ``values`` by name, as text in the units of the label.

        >>> Measure("accuracy", "accuracy %").shown({"accuracy": 0.975})
        '97.50'
        """
        return f"{self.factor * values[self.name]:.2f}"


def body_size(model: nn.Module) -> int:
    """Weights of the body."""
    return count_parameters(model, body_weights(model))


@dataclass(frozen=True)
class Task:
    """A task by its parts.

    Args:
        data: data sets by name, the default first; numbers after a colon are options, as in "figures:size=96".
        architecture: name -> architecture.
        schemes: schemes of sharing by name.
        presets: recipes by name, as what they change.
        learner: the subclass of `training.learner.Learner` that trains.
        measures: what is tabulated, the one that counts first.
        tables: of the paper, by name.
        defaults: of the options `model`, `schemes` and `dof` of the commands.
        baseline: data set -> every measure of a prediction without looking, such as the mean of the training set.
        show: a picture, as a PNG, of what trained models by name make of some test items.
        full_dof: model without a scheme -> the free numbers that a dof of 1.0 stands for.
    """

    name: str
    data: Mapping[str, type[Data]]
    architecture: Callable[[str], Architecture]
    schemes: Mapping[str, Scheme]
    presets: Mapping[str, Mapping[str, Any]]
    learner: Callable[..., Any]
    measures: tuple[Measure, ...]
    tables: Mapping[str, PaperTable]
    defaults: Mapping[str, str] = field(default_factory=dict)
    full_dof: Callable[[nn.Module], int] = body_size
    baseline: Callable[[Any], dict[str, float]] | None = None
    show: Callable[[Mapping[str, nn.Module], Any], bytes] | None = None

    def data_set(self, name: str) -> Callable[..., Data]:
        """The data set called ``name``, its options bound. Raises LinconError for an unknown name or option."""
        return named("data set", name, self.data)


def find_task(name: str) -> Task:
    """The task called ``name``."""
    found: Task = import_module(choose("task", name, TASKS)).TASK
    return found
