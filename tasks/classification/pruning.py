"""Fine-grained pruning as schemes: lottery tickets (Frankle and Carbin 2019) of all weights or of a ring, at equal DoF.

Iterative magnitude pruning trains, removes the least important, puts what is left back to where it began (rewinding),
and trains again, `ROUNDS` times over; each training has its share of the epochs and a learning-rate cycle of its own.
The "-once" schemes train, prune to the end at once, and train on without rewinding. What is pruned away of a model
that nothing constrains is chosen by torch's own pruning utilities.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.nn.utils import prune

import lincon
from lincon.tasks.experiments.body import Architecture, blueprint, body_weights, count
from lincon.tasks.experiments.scheme import Phase, Scheme, constrained, vanilla
from lincon.tasks.experiments.schemes import pruned_places

ROUNDS = 3
"""How often is pruned, by the same share of what is left each time."""

RING = 0.5
"""The ring before it is pruned, as a share of the body's weights; no less than what shall be left."""

_early: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()

Begin = Callable[[nn.Module, int], None]


def halved(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring of half the body's weights, to be pruned to ``dof``."""
    model = blueprint(architecture)
    return constrained("ring").make(architecture, max(dof, round(RING * count(model, body_weights(model)))), seed)


def remember(model: nn.Module, dof: int) -> None:
    """Keep where the model begins, to rewind to."""
    _early[model] = deepcopy(model.state_dict())


def round_of(number: int, rounds: int, size: Callable[[nn.Module], int], cut: Begin, rewind: bool) -> Begin:
    """Before training ``number``: prune to what it is to have left of ``size`` numbers, and rewind."""

    def begin(model: nn.Module, dof: int) -> None:
        whole = size(model)
        cut(model, max(dof, round(whole * (dof / whole) ** (1 / (rounds - number + 1)))))
        if rewind:
            _rewind(model)

    return begin


def _rewind(model: nn.Module) -> None:
    """Put everything that is left back to where it began."""
    now = model.state_dict()
    for name, value in _early[model].items():
        now.get(f"{name}_orig", now.get(name)).copy_(value)  # type: ignore[union-attr]


def weights_left(model: nn.Module) -> int:
    """Weights of the body that are not pruned."""
    kept = [getattr(module, f"{name}_mask", getattr(module, name)) for module, name in pruned_places(model)]
    return sum(int(mask.count_nonzero()) for mask in kept)


def cut_weights(model: nn.Module, keep: int) -> None:
    """Keep the weights of the body that are largest in magnitude, by torch's utilities."""
    away = weights_left(model) - keep
    prune.global_unstructured(pruned_places(model), pruning_method=prune.L1Unstructured, amount=away)


def dof_left(model: nn.Module) -> int:
    """Free numbers that are not pruned."""
    return sum(constraint.dof for constraint in lincon.constraints(model))


def cut_free(model: nn.Module, keep: int) -> None:
    """Keep the free numbers that move the weights most; what is remembered of the others is forgotten."""
    for name, mask in lincon.prune(model, keep).items():
        early = _early.get(model)
        if early is not None:
            early[name] = early[name][mask]


def settle(model: nn.Module, dof: int) -> None:
    """Make pruned weights a pruned `identity`, whose file is what is left and a mask."""
    for module, name in pruned_places(model):
        prune.remove(module, name)
    lincon.constrain(model, "identity", where=body_weights(model))
    lincon.prune(model, dof)


def tickets(size: Callable[[nn.Module], int], cut: Begin, *after: Phase, **scheme: Any) -> dict[str, Scheme]:
    """The iterative scheme and the one that prunes once, with phases ``after`` the last training."""
    share = 1 / (ROUNDS + 1)
    rounds = (Phase(share, round_of(n, ROUNDS, size, cut, rewind=True)) for n in range(1, ROUNDS + 1))
    once = Phase(0.5, round_of(1, 1, size, cut, rewind=False))
    return {
        "": Scheme(phases=(Phase(share, remember), *rounds, *after), **scheme),
        "-once": Scheme(phases=(Phase(0.5), once, *after), **scheme),
    }


PRUNED: dict[str, Scheme] = {
    **{f"imp{name}": s for name, s in tickets(weights_left, cut_weights, Phase(0, settle), make=vanilla).items()},
    **{f"rpg-imp{name}": s for name, s in tickets(dof_left, cut_free, make=halved).items()},
}
"""Schemes by name. DoF are what is left; a table says what the model had before."""
