"""Shapes in signatures are checked at run time, in the tests alone.

Importing this module installs the check; it must come before the first import of lincon.
"""

import os
from typing import get_args

from beartype import beartype
from jaxtyping import AbstractArray, install_import_hook

CHECKED = [
    "lincon.attaching.dof",
    "lincon.attaching.initial",
    "lincon.counter",
    "lincon.files.coding",
    "lincon.generators",
    "lincon.pruning",
    "lincon.quantising",
    "lincon.slicing",
    "lincon.tasks.classification.compression",
    "lincon.tasks.classification.data",
    "lincon.tasks.classification.learner",
    "lincon.tasks.classification.studies",
    "lincon.tasks.experiments",
    "lincon.tasks.indoor",
    "lincon.tasks.language",
    "lincon.tasks.pose",
]
"""Modules, with all that is in them, whose functions are checked. (torch.compile cannot trace checks: it sees none.)"""


def check_arrays(function):
    """Have beartype check the arguments that are tensors of a shape; mypy knows about all others."""
    hints = getattr(function, "__annotations__", {})
    arrays = {name: hint for name, hint in hints.items() if is_array(hint)}
    if not arrays:
        return function
    function.__annotations__ = arrays
    return beartype(function)


def is_array(hint):
    """Whether a type is a tensor of a shape, or made of some."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(is_array(inner) for inner in get_args(hint))


os.environ["LINCON_CHECK_SHAPES"] = "1"  # see lincon/shapes.py
install_import_hook(CHECKED, "tests.shapes.check_arrays")
