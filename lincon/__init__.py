"""lincon: neural networks under linear constraints, Ŵ = G W.

Only the small vector W is trained; G is a fixed, seeded matrix that is computed and never stored.
`lincon.experiments` compares schemes on data; it needs the extra `[tasks]`. The functions:
"""

from importlib import import_module as _import_module
from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from lincon import generators as generators
from lincon.attaching.binding import merge as merge
from lincon.attaching.constrain import constrain as constrain
from lincon.attaching.constraint import Constraint as Constraint
from lincon.attaching.constraint import constraints as constraints
from lincon.attaching.decay import param_groups as param_groups
from lincon.attaching.ledger import Entry as Entry
from lincon.attaching.ledger import Ledger as Ledger
from lincon.attaching.report import summary as summary
from lincon.attaching.spec import constrain_like as constrain_like
from lincon.attaching.spec import spec as spec
from lincon.errors import DofError as DofError
from lincon.errors import FileError as FileError
from lincon.errors import LinconError as LinconError
from lincon.errors import LinconWarning as LinconWarning
from lincon.errors import TargetError as TargetError
from lincon.errors import UnknownGeneratorError as UnknownGeneratorError
from lincon.files.contents import inspect as inspect
from lincon.files.loading import load as load
from lincon.files.saving import save as save
from lincon.generator import Generator as Generator
from lincon.plotting import plot as plot
from lincon.processes.distributed import check_ranks as check_ranks
from lincon.processes.distributed import fully_shard as fully_shard
from lincon.pruning import prune as prune
from lincon.pruning import zeros as zeros
from lincon.quantising import quantize as quantize

__all__ = [
    "Constraint",
    "DofError",
    "Entry",
    "FileError",
    "Generator",
    "Ledger",
    "LinconError",
    "LinconWarning",
    "TargetError",
    "UnknownGeneratorError",
    "check_ranks",
    "constrain",
    "constrain_like",
    "constraints",
    "fully_shard",
    "generators",
    "inspect",
    "load",
    "merge",
    "param_groups",
    "plot",
    "prune",
    "quantize",
    "save",
    "spec",
    "summary",
    "zeros",
]


def __getattr__(name: str) -> object:
    """`lincon.experiments`, which imports Lightning, when it is first asked for."""
    if name == "experiments":
        return _import_module("lincon.experiments")
    raise AttributeError(f"module 'lincon' has no attribute {name!r}")


def _first_lines() -> str:
    """The public functions for `help`, a line each."""
    functions = {name: globals()[name] for name in __all__ if name.islower()}
    return "\n".join(
        f"    {name:<15} {(function.__doc__ or '').partition(chr(10))[0]}"
        for name, function in functions.items()
        if callable(function)
    )


__doc__ = f"{__doc__}\n{_first_lines()}\n"

try:
    __version__ = _version("lincon-torch")
except _PackageNotFoundError:
    __version__ = "unknown"
