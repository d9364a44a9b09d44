"""What all trainings of an experiment have in common, and what tells them apart."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from lincon import LinconError
from lincon.tasks.classification.choice import choose
from lincon.tasks.classification.data import DATA
from lincon.tasks.classification.models import architecture
from lincon.tasks.classification.schemes import SCHEMES

OPTIMISERS = "sgd", "heavy-ball", "adam"
SCHEDULES = "cycle", "cosine", "steps", "thirds", "exponential"


@dataclass(frozen=True)
class Recipe:
    """How every model of an experiment is trained.

    Args:
        data: name in `DATA`.
        epochs: passes over the training images, all phases together.
        batch: images a step.
        images: training images used (a fixed subset of all classes); None for all. The test set is always whole.
        optimiser: "sgd" (Nesterov momentum 0.9), "heavy-ball" (plain momentum 0.9) or "adam" (AdamW).
        learning_rate: at the top of its schedule.
        schedule: "cycle" (up and down once), "cosine", "steps" (a fifth at 30, 60 and 80 % of the epochs), "thirds" (a
            tenth after each third), or "exponential" (evenly, to a hundredth).
        weight_decay: on every parameter, the free vector included.

    Raises:
        LinconError: an unknown name, or a number below its least.
    """

    data: str = "digits"
    epochs: int = 20
    batch: int = 64
    images: int | None = None
    optimiser: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "cycle"
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        choose("data set", self.data, DATA)
        choose("optimiser", self.optimiser, dict.fromkeys(OPTIMISERS))
        choose("schedule", self.schedule, dict.fromkeys(SCHEDULES))
        for name in ("epochs", "batch", "images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise LinconError(f"{name} is {value}; at least 1 is needed.")
        if not 0 < self.learning_rate < inf or not 0 <= self.weight_decay < inf:
            raise LinconError(
                f"learning rate {self.learning_rate} must be above 0, weight decay {self.weight_decay} not below."
            )


PRESETS: dict[str, Mapping[str, Any]] = {
    "quick": {},
    "cifar": {"epochs": 200, "batch": 128, "schedule": "steps"},
    "imagenet": {
        "epochs": 90,
        "batch": 256,
        "optimiser": "heavy-ball",
        "schedule": "exponential",
        "weight_decay": 1e-4,
    },
    "imagenet-paper": {
        "epochs": 225,
        "batch": 256,
        "optimiser": "heavy-ball",
        "learning_rate": 0.3,
        "schedule": "thirds",
        "weight_decay": 3e-5,
    },
    "vit": {"optimiser": "adam", "learning_rate": 1e-3, "weight_decay": 1e-4},
}
"""Recipes by name, as what they change.

`quick`: two cores and minutes, the default. `cifar`: the public CIFAR-100 recipe nearest to the paper's (0.1 divided by
5 at epochs 60, 120 and 160 of 200, Nesterov). `imagenet`: the authors' released code (0.1 x 0.1^(epoch / 45)).
`imagenet-paper`: what the paper is remembered to say, unverified (0.3, a tenth every 75 epochs). `vit`: transformers,
for which SGD's rate is far too high.
"""


@dataclass(frozen=True)
class Cell:
    """One training: a scheme on a model, with so many DoF and a seed.

    ``dof``: free numbers in the body, an int, or a float: that fraction of the body's weights; None where the scheme
    takes none.
    """

    model: str
    scheme: str
    dof: int | float | None
    seed: int

    def __post_init__(self) -> None:
        architecture(self.model)
        if not choose("scheme", self.scheme, SCHEMES).takes_dof:
            object.__setattr__(self, "dof", None)
        if not 0 <= self.seed < 1 << 32:
            raise LinconError(f"seed={self.seed}; give one from 0 to {(1 << 32) - 1}.")

    @property
    def name(self) -> str:
        """A name for files."""
        parts = [self.model, self.scheme, *([] if self.dof is None else [str(self.dof)]), str(self.seed)]
        return "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in part) for part in parts)


def describe(recipe: Recipe, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as plain JSON, with the options given to the Trainer."""
    return {**asdict(recipe), **({"trainer": dict(trainer)} if trainer else {})}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What two recipes or cells, as plain JSON, do not have in common, in words."""
    both = {key: (json.dumps(there.get(key)), json.dumps(here.get(key))) for key in dict.fromkeys([*here, *there])}
    return [f"{key} is {old} there and {new} here" for key, (old, new) in both.items() if old != new]


def cells(models: list[str], schemes: list[str], dofs: list[int | float], seeds: range) -> list[Cell]:
    """Every combination once, seeds outermost, so that an interrupted experiment has whole rounds."""
    every = [Cell(m, s, d, seed) for seed in seeds for m in models for d in dofs for s in schemes]
    if not every:
        raise LinconError("Nothing to train: give at least one model, one scheme and one dof.")
    return list({cell.name: cell for cell in every}.values())  # by name: a dof of 1 is not one of 1.0
