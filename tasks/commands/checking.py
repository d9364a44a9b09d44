"""Names that are checked before anything heavy is imported, so that a wrong one is refused at once."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from lincon.errors import LinconError
from lincon.tasks.experiments.names import TASKS, choose
from lincon.tasks.experiments.schemes.named import find_scheme


def part_of(task: str, part: str) -> Any:
    """The module "schemes" or "models" of a task."""
    choose("task", task, TASKS)
    return import_module(f"lincon.tasks.{task}.{part}")


def check_names(task: str, schemes: Iterable[str], models: Iterable[str]) -> None:
    """Raise LinconError for a task, a scheme or a model that there is not."""
    known = part_of(task, "schemes").SCHEMES
    for scheme in schemes:
        find_scheme(scheme, known)
    architecture = part_of(task, "models").architecture
    for model in models:
        architecture(model)


def check_there(path: Path, what: str) -> Path:
    """``path``, if there is anything at it; else LinconError says that ``what`` is needed."""
    if not path.exists():
        raise LinconError(f"{path} is missing: give {what}.")
    return path
