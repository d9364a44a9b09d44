"""Options of a model in its name, as in "vit-tiny:patch=2,depth=6"."""

from inspect import Parameter, signature
from math import inf

from lincon import LinconError
from lincon.tasks.classification.choice import choose
from lincon.tasks.classification.models.body import Architecture


def options(model: str, architecture: Architecture, text: str) -> dict[str, float]:
    """The arguments that "patch=2,depth=6" stands for: of an architecture's keywords, those that are numbers.

    Raises LinconError for an unknown option, and for a value that is not positive or not of the option's kind.
    """
    known = {p.name: p.default for p in signature(architecture).parameters.values() if _is_option(p)}
    pairs = [item.split("=", 1) for item in text.replace(" ", "").split(",")]
    return {name: _number(name, "".join(value), choose(f"option of {model}", name, known)) for name, *value in pairs}


def _is_option(parameter: Parameter) -> bool:
    number = parameter.default is None or isinstance(parameter.default, int | float)
    return parameter.kind is Parameter.KEYWORD_ONLY and number


def _number(name: str, text: str, default: float | None) -> float:
    kind = float if isinstance(default, float) else int
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < inf:
        noun = "number" if kind is float else "integer"
        raise LinconError(f"Option {name} is {text!r}; it must be a positive {noun}, as in {name}=2.")
    return value
