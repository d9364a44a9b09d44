"""Depth and normals of indoor scenes as a task: its parts by name."""

from collections.abc import Mapping
from typing import Any

from lincon.tasks.experiments.schemes.body import one_sub_network
from lincon.tasks.experiments.task import Task
from lincon.tasks.indoor.baseline import baseline
from lincon.tasks.indoor.data import DATA
from lincon.tasks.indoor.data.own import own_data
from lincon.tasks.indoor.learner import MEASURES, Regressor
from lincon.tasks.indoor.models import architecture
from lincon.tasks.indoor.schemes import SCHEMES
from lincon.tasks.indoor.showing import show
from lincon.tasks.indoor.tables import TABLES

PRESETS: dict[str, Mapping[str, Any]] = {
    "quick": {
        "epochs": 8,
        "batch": 16,
        "optimiser": "adam",
        "learning_rate": 0.003,
        "schedule": "cycle",
        "weight_decay": 1e-4,
    },
    "2d-3d-s": {
        "data": "2d-3d-s",
        "epochs": 20,
        "batch": 16,
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "weight_decay": 1e-4,
    },
}
"""Recipes by name: the options that they change.

`quick`: ray-cast rooms, two cores and about an hour for a table. `2d-3d-s`: our own recipe for
Stanford 2D-3D-S, which has not been tried; the paper's is not known, and SharpNet's (SGD at 1e-5)
starts from an encoder trained on ImageNet.
"""

TASK = Task(
    name="indoor",
    data=DATA,
    architecture=architecture,
    schemes=SCHEMES,
    presets=PRESETS,
    own_data=own_data,
    learner=Regressor,
    measures=MEASURES,
    tables=TABLES,
    defaults={"model": "small", "schemes": "vanilla,shared-bn,new-bn,rpg", "dof": "1.0"},
    full_dof=one_sub_network,
    baseline=baseline,
    show=show,
)
