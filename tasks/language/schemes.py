"""Schemes of sharing in the blocks of a GPT, by name."""

from lincon.tasks.experiments.schemes.scheme import Scheme, vanilla
from lincon.tasks.experiments.schemes.sharing import SHARING

SCHEMES: dict[str, Scheme] = {"vanilla": Scheme(vanilla, takes_dof=False), **SHARING}
"""Schemes by name, in the order of a table."""
