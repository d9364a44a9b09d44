"""Image classification as a task: its parts by name."""

from collections.abc import Mapping
from typing import Any

from lincon.tasks.classification.compression.pruning import PRUNED
from lincon.tasks.classification.data import DATA
from lincon.tasks.classification.data.own import own_data
from lincon.tasks.classification.learner import MEASURES, Classifier
from lincon.tasks.classification.models import architecture
from lincon.tasks.classification.schemes import SCHEMES
from lincon.tasks.classification.tables import TABLES
from lincon.tasks.experiments.task import Task

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
"""Recipes by name: the options that they change.

`quick`: two cores and minutes, the default. `cifar`: the public CIFAR-100 recipe nearest to the
paper's (0.1 divided by 5 at epochs 60, 120 and 160 of 200, Nesterov). `imagenet`: the authors'
released code (0.1 x 0.1^(epoch / 45)). `imagenet-paper`: the paper's recipe from memory, unverified
(0.3, a tenth every 75 epochs). `vit`: transformers, for which SGD's rate is far too high.
"""

TASK = Task(
    name="classification",
    data=DATA,
    architecture=architecture,
    schemes=SCHEMES,
    presets=PRESETS,
    own_data=own_data,
    learner=Classifier,
    measures=MEASURES,
    tables=TABLES,
    defaults={
        "model": "resnet-small",
        "dof": "0.1",
        "schemes": ",".join(n for n in SCHEMES if n not in PRUNED),
    },
)
