"""lincon: neural networks under linear constraints, Ŵ = G W.

Only the small vector W is trained; G is a fixed, seeded matrix that is computed and never stored.
"""

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
from lincon.processes.distributed import check_ranks as check_ranks
from lincon.processes.distributed import fully_shard as fully_shard
from lincon.pruning import prune as prune
from lincon.pruning import zeros as zeros
from lincon.quantising import quantize as quantize

try:
    __version__ = _version("lincon-torch")
except _PackageNotFoundError:
    __version__ = "unknown"
