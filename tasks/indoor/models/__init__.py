"""Models by name, with options after a colon, as in "resnet18:copies=3,convolutions=1".

A model has in `body` the sub-networks that the schemes of sharing act upon. To add one, add a line
to `MODELS`.
"""

from functools import partial

from lincon.tasks.experiments.names import named
from lincon.tasks.experiments.schemes.body import Architecture
from lincon.tasks.indoor.models.cascade import FORMS

MODELS: dict[str, Architecture] = {name: partial(form, copies=2) for name, form in FORMS.items()}
"""Models by name: called with the size of the images, and options such as `copies=`."""


def architecture(name: str) -> Architecture:
    """The architecture called ``name``. Raises LinconError for an unknown model or option."""
    return named("model", name, MODELS)
