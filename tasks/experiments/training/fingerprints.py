"""Fingerprints of what a training is made of, so that a finished one is known to be today's.

A recipe names the model and the data; these say what lies under the names: the source of the user's
own code, the tensors of the model, and the items.
"""

import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
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
from lincon.tasks.experiments.training.typed_code import code_typed

CODE = "code of "
"""How the names of fingerprints of code begin."""

TYPED = "a notebook"
"""Stands for the modules of functions that no file holds."""

TEST_ITEMS = "test items"

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
        TEST_ITEMS: data.test_set.fingerprint(),
    }


def code_of(*functions: Callable[..., Any]) -> dict[str, str]:
    """The source of the modules that the functions come from, and of what those import.

    Neither lincon counts nor, among what is imported, installed packages. What is read at run time
    by other ways than `import` is not seen. Functions of a notebook, whose modules have no source,
    count by their code.
    """
    homes = {module for each in functions for module in _homes(each)}
    waiting = sorted(homes)
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        source = _source(name)
        if source is None or f"{CODE}{name}" in found or name.partition(".")[0] == "lincon":
            continue
        is_own = not any(source.is_relative_to(place) for place in _INSTALLED)
        if is_own or name in homes:
            found[f"{CODE}{name}"] = digest(source.read_bytes())
        if is_own:
            waiting += _imports(sys.modules[name])
    if (typed := code_typed(*functions)) is not None:
        found[f"{CODE}{TYPED}"] = typed
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


def _source(name: str) -> Path | None:
    """The file of an imported module, if it is one of Python source."""
    file = getattr(sys.modules.get(name), "__file__", None)
    path = Path(file) if file else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _tensors(make: Callable[[], nn.Module]) -> list[Any]:
    """Name, shape and type of each tensor of a model."""
    model = blueprint(make)
    named = [*model.named_parameters(), *model.named_buffers()]
    return [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in named]
