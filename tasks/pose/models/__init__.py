"""Models by name, with options after a colon, as in "hourglass:stacks=4".

A model has in `body` the sub-networks that the schemes of sharing act upon. To add one, add a line
to `MODELS`.
"""

from functools import partial

from lincon.tasks.experiments.names import named
from lincon.tasks.experiments.schemes.body import Architecture
from lincon.tasks.pose.models.hourglass import Hourglass
from lincon.tasks.pose.models.machine import PoseMachine

MODELS: dict[str, Architecture] = {
    "hourglass-small": partial(Hourglass, channels=64, depth=3),
    "hourglass": Hourglass,
    "cpm": PoseMachine,
}
"""Models by name: called with the size of the pictures, and `width=` or `reuse=` where wanted."""


def architecture(name: str) -> Architecture:
    """The architecture called ``name``. Raises LinconError for an unknown model or option."""
    return named("model", name, MODELS)
