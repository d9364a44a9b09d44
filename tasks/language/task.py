"""Language as a task: its parts by name."""

from collections.abc import Mapping
from typing import Any

from lincon.tasks.experiments.task import Task
from lincon.tasks.language.baseline import baseline
from lincon.tasks.language.data import DATA
from lincon.tasks.language.data.own import own_data
from lincon.tasks.language.learner import MEASURES, Reader
from lincon.tasks.language.models import architecture
from lincon.tasks.language.schemes import SCHEMES
from lincon.tasks.language.showing import show

ADAM: Mapping[str, Any] = {
    "batch": 16,
    "optimiser": "adam",
    "learning_rate": 3e-3,
    "schedule": "cycle",
    "weight_decay": 1e-2,
}

PRESETS: dict[str, Mapping[str, Any]] = {
    "quick": {**ADAM, "epochs": 20},
    "handbook": {**ADAM, "data": "handbook", "epochs": 4},
}
"""Recipes by name: the options that they change.

`quick`: the excerpt, in a minute. `handbook`: a book of 1.1 MB, which Debian's package has.
"""

TASK = Task(
    name="language",
    data=DATA,
    architecture=architecture,
    schemes=SCHEMES,
    presets=PRESETS,
    own_data=own_data,
    own="a .txt file",
    learner=Reader,
    measures=MEASURES,
    tables={},
    defaults={
        "model": "gpt-micro",
        "dof": "0.1",
        "schemes": "vanilla,rpg,random,hash,sparse,kronecker,fastfood,small",
    },
    baseline=baseline,
    show=show,
)
