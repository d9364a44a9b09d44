"""What a task is to an experiment: its data, models, schemes of sharing and measures, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import nn

from lincon import LinconError
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.names import TASKS as TASKS
from lincon.tasks.experiments.names import choose, named
from lincon.tasks.experiments.schemes.body import Architecture, body_weights, count_parameters
from lincon.tasks.experiments.schemes.named import find_scheme
from lincon.tasks.experiments.schemes.scheme import Scheme
from lincon.tasks.experiments.sweeps.tables import PaperTable


@dataclass(frozen=True)
class Measure:
    """A number that models are judged by.

    Args:
        name: what metrics and files call it.
        label: what tables call it, with the unit.
        factor: from the value as it is stored to the unit of the label.
        higher_is_better: whether more is better.
        digits: after the point, in tables.
        decides: whether tables compare schemes by it.
        counts_items: whether it is a share of the test items, whose smallest step is one of them.
        worst: of a measure where less is better, the value of a model that knows nothing, if there
            is one.
    """

    name: str
    label: str
    factor: float = 100
    higher_is_better: bool = True
    digits: int = 2
    decides: bool = False
    counts_items: bool = False
    worst: float | None = None

    def shown(self, values: Mapping[str, float]) -> str:
        """This measure's value among ``values``, as text in the unit of the label.

        >>> Measure("accuracy", "accuracy %").shown({"accuracy": 0.975})
        '97.50'
        """
        return f"{self.factor * values[self.name]:.{self.digits}f}"

    @property
    def span(self) -> float:
        """From the worst to the best, in the unit of the label.

        Raises:
            LinconError: less is better, and nothing is the worst.

        >>> Measure("accuracy", "accuracy %").span
        100
        """
        if self.higher_is_better:
            return self.factor
        if self.worst is None:
            raise LinconError(f"{self.label} has no worst value, so it is no share of anything.")
        return self.factor * self.worst

    def share(self, value: float) -> float:
        """A value as it is stored, as a fraction: 1 is the best, 0 the worst.

        >>> Measure("bits", "bits", 1, higher_is_better=False, worst=8.0).share(2.0)
        0.75
        """
        return value if self.higher_is_better else 1 - self.factor * value / self.span

    def of_share(self, share: float) -> float:
        """The value, in the unit of the label, whose share is ``share``.

        >>> Measure("bits", "bits", 1, higher_is_better=False, worst=8.0).of_share(0.75)
        2.0
        """
        return self.span * (share if self.higher_is_better else 1 - share)

    def last(self, curves: Mapping[str, Sequence[float]]) -> float:
        """This measure after the last epoch, in the unit of the label.

        >>> Measure("accuracy", "accuracy %").last({"accuracy": [0.5, 0.75]})
        75.0
        """
        return self.factor * curves[self.name][-1]


def body_size(model: nn.Module) -> int:
    """The number of weights in the body."""
    return count_parameters(model, body_weights(model))


@dataclass(frozen=True)
class Task:
    """A task by its parts.

    Args:
        name: name in `TASKS`.
        data: data sets by name, the default first. A name may have options: "figures:size=96".
        architecture: name of a model -> architecture.
        schemes: schemes of sharing by name.
        presets: recipes by name, each as the fields of a `Recipe` that it changes.
        learner: the `training.learner.Learner` of the task. Its type is left open, since learners
            know recipes, and recipes know tasks.
        measures: what tables show; the first is the score.
        tables: tables of the paper by name.
        defaults: values of the options `model`, `schemes` and `dof` of the commands.
        full_dof: model without a scheme -> how many free numbers a dof of 1.0 stands for.
        baseline: data set -> every measure of a prediction that ignores the input, such as the mean
            of the training set.
        own_data: name that is not in ``data`` -> a data set of the user's own, or None.
        own: what ``own_data`` takes, in words.
        show: (trained models by name, data set) -> a PNG of their predictions for some test items.
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
    own_data: Callable[[str], Callable[..., Data] | None] | None = None
    own: str = "a .npz file, or package.module:function"
    show: Callable[[Mapping[str, nn.Module], Any], bytes] | None = None

    def scheme(self, name: str) -> Scheme:
        """The scheme or the generator called ``name``, with its options.

        Raises:
            LinconError: an unknown name or option.
        """
        return find_scheme(name, self.schemes)

    def data_set(self, name: str) -> Callable[..., Data]:
        """The data set called ``name``, with its options bound.

        Raises:
            LinconError: an unknown name or option.
        """
        is_own = name.partition(":")[0] not in self.data and self.own_data is not None
        own = self.own_data(name) if is_own and self.own_data else None
        return own or named("data set", name, self.data)


def find_task(name: str) -> Task:
    """The task called ``name``. Raises LinconError for an unknown name.

    >>> find_task("classification").measures[0].label
    'accuracy %'
    """
    module = import_module(choose("task", name, TASKS))
    task: Task = module.TASK
    return task
