"""Fingerprints of what a training is made of, so that a finished one is known to be today's.

A recipe names the model and the data; these say what lies under the names: the source of the user's
own code, the tensors of the model, and the items.
"""

import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

import lincon
from lincon.tasks.experiments.data.sets import Data, digest
from lincon.tasks.experiments.schemes.body import Architecture, blueprint
from lincon.tasks.experiments.task import find_task
from lincon.tasks.experiments.training.recipe import Cell, Recipe

CODE = "code of "
"""How the names of fingerprints of code begin."""

_INSTALLED = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]


def fingerprints(recipe: Recipe, cell: Cell, model: nn.Module, data: Data) -> dict[str, str]:
    """By name, what a training is made of; another value is another training.

    Args:
        recipe: names the data.
        cell: names the model.
        model: of the cell, untrained; its generators may be the user's own.
        data: of the recipe.
    """
    task = find_task(cell.task)
    architecture = task.architecture(cell.model)
    generators = [
        type(group.generator)
        for constraint in lincon.constraints(model)
        for group in constraint.groups
    ]
    code = code_of(architecture, task.data_set(recipe.data), *generators)
    return {
        **code,
        "tensors": digest(_tensors(partial(architecture, *data.shape))),
        "training items": data.train_set.fingerprint(),
        "test items": data.test_set.fingerprint(),
    }


def code_of(*functions: Callable[..., Any]) -> dict[str, str]:
    """The source of the modules that the user's functions come from, and of what those import.

    Of the imported modules these count that are not installed, or are of the same package. lincon
    itself does not. What is read at run time by other ways than `import` is not seen.
    """
    waiting = [module for each in functions for module in _homes(each)]
    packages = {module.partition(".")[0] for module in waiting}
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if module is None or f"{CODE}{name}" in found or not _is_own(module, packages):
            continue
        found[f"{CODE}{name}"] = digest(Path(str(module.__file__)).read_bytes())
        waiting += _imports(module)
    return dict(sorted(found.items()))


def changed_code(there: Mapping[str, Any], architecture: Architecture) -> list[str]:
    """Modules of a model whose source is not what a record says.

    Args:
        there: fingerprints, by name, among other things.
        architecture: of the model.
    """
    today = code_of(architecture)
    return [
        name.removeprefix(CODE)
        for name, value in today.items()
        if name in there and there[name] != value
    ]


def _homes(function: Any) -> Iterator[str]:
    """The modules of a function and, if arguments are bound to it, of the functions among them."""
    if isinstance(function, partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            yield from _homes(part)
    elif callable(function):
        yield str(getattr(function, "__module__", ""))


def _imports(module: ModuleType) -> list[str]:
    values = list(vars(module).values())
    names = [each.__name__ for each in values if isinstance(each, ModuleType)]
    return names + [str(getattr(each, "__module__", "")) for each in values]


def _is_own(module: ModuleType, packages: Iterable[str]) -> bool:
    """Whether the source of a module is the user's."""
    file = getattr(module, "__file__", None)
    top = module.__name__.partition(".")[0]
    if file is None or not file.endswith(".py") or top == "lincon":
        return False
    return top in packages or not any(Path(file).is_relative_to(place) for place in _INSTALLED)


def _tensors(make: Callable[[], nn.Module]) -> list[Any]:
    """Name, shape and type of each tensor of a model."""
    model = blueprint(make)
    named = [*model.named_parameters(), *model.named_buffers()]
    return [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in named]

