"""Ways of sharing between the sub-networks of a cascade, by name."""

from torch import nn

from lincon.tasks.experiments.schemes.body import Architecture
from lincon.tasks.experiments.schemes.scheme import Scheme, vanilla
from lincon.tasks.experiments.schemes.sharing import SHARING


def shared(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """One sub-network at every position, norms and all, as in pose machines with shared stages."""
    return architecture(reuse=True)


SCHEMES: dict[str, Scheme] = {
    "none": Scheme(vanilla, takes_dof=False),
    "shared": Scheme(shared, takes_dof=False, bare=shared),
    **SHARING,
}
"""Schemes by name.

The generators make the weights of all sub-networks; norms, biases, stem and links stay free.
"""
