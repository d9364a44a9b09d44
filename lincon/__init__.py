"""lincon: neural networks under linear constraints, Ŵ = G W.

Only the small vector W is trained; G is a fixed, seeded matrix that is computed and never stored.
"""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from lincon import generators as generators
from lincon.attach import constrain as constrain
from lincon.binding import merge as merge
from lincon.constraint import Constraint as Constraint
from lincon.constraint import constraints as constraints
from lincon.contents import inspect as inspect
from lincon.distributed import check_ranks as check_ranks
from lincon.distributed import fully_shard as fully_shard
from lincon.errors import DofError as DofError
from lincon.errors import FileError as FileError
from lincon.errors import LinconError as LinconError
from lincon.errors import LinconWarning as LinconWarning
from lincon.errors import TargetError as TargetError
from lincon.errors import UnknownGeneratorError as UnknownGeneratorError
from lincon.files import load as load
from lincon.files import save as save
from lincon.generator import Generator as Generator
from lincon.ledger import Entry as Entry
from lincon.ledger import Ledger as Ledger
from lincon.pruning import prune as prune
from lincon.pruning import zeros as zeros
from lincon.quantising import quantize as quantize
from lincon.report import summary as summary

try:
    __version__ = _version("lincon-torch")
except _PackageNotFoundError:
    __version__ = "unknown"
