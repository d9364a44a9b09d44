"""Models by name, with options after a colon, as in "gpt-micro:depth=4"."""

from functools import partial

from lincon.tasks.experiments.names import named
from lincon.tasks.experiments.schemes.body import Architecture
from lincon.tasks.language.models.gpt import GPT

MODELS: dict[str, Architecture] = {
    "gpt-micro": partial(GPT, dim=64, depth=2, heads=2),
    "gpt-mini": partial(GPT, dim=128, depth=4, heads=4),
    "gpt-small": partial(GPT, dim=256, depth=6, heads=8),
}
"""Models by name: called with the context, and with `width=` for another width.

Their bodies have 98,304, 786,432 and 4,718,592 weights.
"""


def architecture(name: str) -> Architecture:
    """The architecture called ``name``. Raises LinconError for an unknown model or option."""
    return named("model", name, MODELS)
