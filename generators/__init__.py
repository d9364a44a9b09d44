"""The generators, one a file: the listing of this folder is the feature list.

A new one is a file here and a line below; `lincon.testing.check_generator` checks its laws.
`OneNonzero` is the base of those with one nonzero in each row.
"""

if __name__ != "lincon.generators":
    raise ImportError(
        "Import lincon.generators, never generators: a second copy would register everything twice."
    )

from lincon.generators.codebook import Codebook
from lincon.generators.dense import Dense
from lincon.generators.fastfood import Fastfood
from lincon.generators.fold import Fold
from lincon.generators.hash import Hash
from lincon.generators.identity import Identity
from lincon.generators.kronecker import Kronecker
from lincon.generators.lego import Lego
from lincon.generators.mask import Mask
from lincon.generators.matrix import Matrix
from lincon.generators.nullspace import Nullspace
from lincon.generators.one_nonzero import OneNonzero
from lincon.generators.part import Part
from lincon.generators.random import Random
from lincon.generators.ring import Ring
from lincon.generators.sparse import Sparse
from lincon.maps.registry import available, build, get, register

__all__ = [
    "Codebook",
    "Dense",
    "Fastfood",
    "Fold",
    "Hash",
    "Identity",
    "Kronecker",
    "Lego",
    "Mask",
    "Matrix",
    "Nullspace",
    "OneNonzero",
    "Part",
    "Random",
    "Ring",
    "Sparse",
    "available",
    "build",
    "get",
    "register",
]
