"""lincon: neural networks under linear constraints, Ŵ = G W.

Only the small vector W is trained; G is a fixed, seeded matrix that is computed and never stored.
`lincon.experiments` compares schemes on data; it needs the extra `[tasks]`. The functions:

    check_ranks     Check that all ranks have the same map from W to Ŵ.
    constrain       Generate weights of a model from free vectors, in place: Ŵ = G W, or W₀ + G W.
    constrain_like  Constrain a model as another one is, in place, with the same G to the bit.
    constraints     The constraints of a model and of the modules in it.
    fully_shard     Shard a constrained model over the ranks by torch's FSDP2, in place.
    inspect         Read a file and check that it is complete and unaltered.
    load            Constrain a model as a file says and fill it, bit for bit.
    merge           Turn a constrained model into an ordinary one, in place.
    param_groups    The trainable parameters of a model, for an optimiser, by whether they decay.
    plot            Draw which part of the free vector each tensor reads, and G itself if it is small.
    prune           Set the least important free numbers or weights to zero for good, in place.
    quantize        Quantise the free vectors of a constrained model in place.
    save            Write a model: free vectors, unconstrained tensors, spec and ledger.
    spec            What G is, for all constraints of a model: plain JSON, for `constrain_like`.
    summary         Count everything in a model, constrained or not.
    zeros           The number of generated weights that are zero, and of all generated weights.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from lincon import generators as generators
from lincon.attaching.binding import merge as merge
from lincon.attaching.constrain import constrain as constrain
from lincon.attaching.constraint import Constraint as Constraint
from lincon.attaching.constraint import constraints as constraints
from lincon.attaching.decay import param_groups as param_groups
from lincon.attaching.ledger import Entry as Entry
from lincon.attaching.ledger import Ledger as Ledger
from lincon.errors import DofError as DofError
from lincon.errors import FileError as FileError
from lincon.errors import LinconError as LinconError
from lincon.errors import LinconWarning as LinconWarning
from lincon.errors import TargetError as TargetError
from lincon.errors import UnknownGeneratorError as UnknownGeneratorError
from lincon.generator import Generator as Generator

if TYPE_CHECKING:
    from lincon.attaching.report import summary as summary
    from lincon.attaching.spec import constrain_like as constrain_like
    from lincon.attaching.spec import spec as spec
    from lincon.files.contents import inspect as inspect
    from lincon.files.loading import load as load
    from lincon.files.saving import save as save
    from lincon.plotting import plot as plot
    from lincon.processes.distributed import check_ranks as check_ranks
    from lincon.processes.distributed import fully_shard as fully_shard
    from lincon.pruning import prune as prune
    from lincon.pruning import zeros as zeros
    from lincon.quantising import quantize as quantize

    __version__: str

_LATER = {
    "check_ranks": "lincon.processes.distributed",
    "constrain_like": "lincon.attaching.spec",
    "fully_shard": "lincon.processes.distributed",
    "inspect": "lincon.files.contents",
    "load": "lincon.files.loading",
    "plot": "lincon.plotting",
    "prune": "lincon.pruning",
    "quantize": "lincon.quantising",
    "save": "lincon.files.saving",
    "spec": "lincon.attaching.spec",
    "summary": "lincon.attaching.report",
    "zeros": "lincon.pruning",
}
"""What a training needs before or after its steps is imported when it is first asked for."""

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
    if name in _LATER:
        found: object = getattr(_import_module(_LATER[name]), name)
    elif name == "experiments":  # imports Lightning
        found = _import_module("lincon.experiments")
    elif name == "__version__":
        found = _installed_version()
    else:
        raise AttributeError(f"module 'lincon' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__", "experiments"})


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lincon-torch")
    except PackageNotFoundError:
        return "unknown"
