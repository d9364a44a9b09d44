"""Human pose as a task: its parts by name."""

from collections.abc import Mapping
from typing import Any

from lincon.tasks.experiments.schemes.body import one_sub_network
from lincon.tasks.experiments.task import Task
from lincon.tasks.pose.baseline import baseline
from lincon.tasks.pose.data import DATA
from lincon.tasks.pose.data.own import own_data
from lincon.tasks.pose.learner import MEASURES, Pose
from lincon.tasks.pose.models import architecture
from lincon.tasks.pose.schemes import SCHEMES
from lincon.tasks.pose.showing import show
from lincon.tasks.pose.tables import TABLES

PRESETS: dict[str, Mapping[str, Any]] = {
    "quick": {
        "epochs": 12,
        "batch": 16,
        "optimiser": "adam",
        "learning_rate": 0.02,
        "schedule": "cycle",
        "weight_decay": 1e-4,
    },
    "mpii": {
        "data": "mpii",
        "epochs": 100,
        "batch": 6,
        "optimiser": "rmsprop",
        "learning_rate": 2.5e-4,
        "schedule": "tenths",
        "weight_decay": 0.0,
    },
}
"""Recipes by name: the options that they change.

`quick`: drawn figures, two cores and minutes. `mpii`: the public recipe of pytorch-pose for stacked
hourglasses; the paper's own is not known.
"""

TASK = Task(
    name="pose",
    data=DATA,
    architecture=architecture,
    schemes=SCHEMES,
    presets=PRESETS,
    own_data=own_data,
    learner=Pose,
    measures=MEASURES,
    tables=TABLES,
    defaults={"model": "hourglass-small:stacks=2", "schemes": "none,shared,rpg", "dof": "1.0"},
    full_dof=one_sub_network,
    baseline=baseline,
    show=show,
)
