"""Ways of sharing between the sub-networks of a cascade, by name."""

from torch import nn

import lincon
from lincon.tasks.experiments.schemes.body import Architecture, body_weights
from lincon.tasks.experiments.schemes.scheme import Make, Scheme, vanilla
from lincon.tasks.experiments.schemes.sharing import SHARING


def alone(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """One sub-network, no cascade."""
    return architecture(copies=1)


def reusing(common: str) -> Make:
    """A cascade whose copies share "weights", or "all": norms as well."""

    def make(architecture: Architecture, dof: int, seed: int) -> nn.Module:
        return architecture(reuse=common)

    what = "everything, norms as well" if common == "all" else "their weights, but no norms"
    make.__doc__ = f"A cascade whose copies share {what}."

    return make


def by_layer(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring for each layer, shared by all copies of the layer: rings of building blocks."""
    model = architecture()
    lincon.constrain(model, "ring", dof=dof, seed=seed, where=body_weights(model), scope=layer)
    return model


def layer(name: str) -> str:
    """The name of a weight within its sub-network.

    >>> layer("body.1.encoder.0.weight")
    'encoder.0.weight'
    """
    return name.split(".", 2)[2]


SCHEMES: dict[str, Scheme] = {
    "vanilla": Scheme(alone, takes_dof=False, bare=alone),
    "shared-bn": Scheme(reusing("all"), takes_dof=False, bare=reusing("all")),
    "new-bn": Scheme(reusing("weights"), takes_dof=False, bare=reusing("weights")),
    "rpg": SHARING["rpg"],
    "rpg-layer": Scheme(by_layer),
    "none": Scheme(vanilla, takes_dof=False),
    **SHARING,
}
"""Schemes by name.

The generators make the weights of all sub-networks; norms and biases stay free.
"""
