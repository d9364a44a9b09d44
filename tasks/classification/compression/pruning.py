"""Pruning as schemes: lottery tickets (Frankle and Carbin 2019) of all weights or of a ring, and fewer channels.

Iterative magnitude pruning trains, removes the least important, puts what is left back to where it
began (rewinding), and trains again, `ROUNDS` times over; each training has its share of the epochs
and a learning-rate cycle of its own. The "-once" schemes train, prune to the end at once, and train
on without rewinding. What is pruned away of a model that nothing constrains is chosen by torch's
own pruning utilities. The "knapsack" schemes train, take channels away until a share of the
multiply-adds is left, and train on with inner distillation.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.nn.utils import prune

import lincon
from lincon.exporting import merged_copy
from lincon.tasks.classification.compression import knapsack
from lincon.tasks.classification.compression.channels import groups, reshape, shapes_in, slim
from lincon.tasks.classification.models.resnet import ResNet
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.schemes.body import Architecture, blueprint, body_weights, count
from lincon.tasks.experiments.schemes.scheme import Begin, Make, Phase, Scheme, constrained, vanilla
from lincon.tasks.experiments.schemes.sharing import SHARING, pruned_places

ROUNDS = 3
"""How often is pruned, by the same share of what is left each time."""

RING = 0.5
"""The ring before it is pruned, as a share of the body's weights; no less than what shall be left."""

_early: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()

Cut = Callable[[nn.Module, int], None]


def halved(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring of half the body's weights, to be pruned to ``dof``."""
    model = blueprint(architecture)
    return constrained("ring").make(
        architecture, max(dof, round(RING * count(model, body_weights(model)))), seed
    )


def remember(model: nn.Module, dof: int, data: Data) -> None:
    """Keep where the model begins, to rewind to."""
    _early[model] = deepcopy(model.state_dict())


def round_of(
    number: int, rounds: int, size: Callable[[nn.Module], int], cut: Cut, rewind: bool
) -> Begin:
    """Before training ``number``: prune to what it is to have left of ``size`` numbers, and rewind."""

    def begin(model: nn.Module, dof: int, data: Data) -> None:
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
    kept = [
        getattr(module, f"{name}_mask", getattr(module, name))
        for module, name in pruned_places(model)
    ]
    return sum(int(mask.count_nonzero()) for mask in kept)


def cut_weights(model: nn.Module, keep: int) -> None:
    """Keep the weights of the body that are largest in magnitude, by torch's utilities."""
    away = weights_left(model) - keep
    prune.global_unstructured(
        pruned_places(model), pruning_method=prune.L1Unstructured, amount=away
    )


def dof_left(model: nn.Module) -> int:
    """Free numbers that are not pruned."""
    return sum(constraint.dof for constraint in lincon.constraints(model))


def cut_free(model: nn.Module, keep: int) -> None:
    """Keep the free numbers that move the weights most; what is remembered of the others is forgotten."""
    for name, mask in lincon.prune(model, keep).items():
        early = _early.get(model)
        if early is not None:
            early[name] = early[name][mask]


def settle(model: nn.Module, dof: int, data: Data) -> None:
    """Make pruned weights a pruned `identity`, whose file is what is left and a mask."""
    for module, name in pruned_places(model):
        prune.remove(module, name)
    lincon.constrain(model, "identity", where=body_weights(model))
    lincon.prune(model, dof)


def tickets(
    size: Callable[[nn.Module], int], cut: Cut, *after: Phase, **scheme: Any
) -> dict[str, Scheme]:
    """The iterative scheme and the one that prunes once, with phases ``after`` the last training."""
    share = 1 / (ROUNDS + 1)
    rounds = (
        Phase(share, round_of(n, ROUNDS, size, cut, rewind=True)) for n in range(1, ROUNDS + 1)
    )
    once = Phase(0.5, round_of(1, 1, size, cut, rewind=False))
    return {
        "": Scheme(phases=(Phase(share, remember), *rounds, *after), least=ROUNDS + 1, **scheme),
        "-once": Scheme(phases=(Phase(0.5), once, *after), least=2, **scheme),
    }


def residual(make: Make) -> Make:
    """The same models, refused before any training where their channels cannot be pruned."""

    def checked(architecture: Architecture, dof: int, seed: int) -> nn.Module:
        model = make(architecture, dof, seed)
        groups(model)
        return model

    return checked


def narrow(model: nn.Module, dof: int, data: Data) -> None:
    """Take away the channels that do not fit the budget, and hold what is left near what there was."""
    assert isinstance(model, ResNet)
    teacher, masks = merged_copy(model), knapsack.fit(model, data)
    slim(model, masks)
    model.add_module(
        _DISTILLATION,
        knapsack.Distillation(model, teacher, masks).to(next(model.parameters()).device),
    )


def distil(model: nn.Module) -> Tensor:
    """What the training after `narrow` adds to the loss."""
    distillation = model.get_submodule(_DISTILLATION)
    assert isinstance(distillation, knapsack.Distillation)
    return distillation.penalty()


def undo(model: nn.Module, dof: int, data: Data) -> None:
    """Take the distillation away again."""
    distillation = model.get_submodule(_DISTILLATION)
    assert isinstance(distillation, knapsack.Distillation)
    distillation.remove()
    del model._modules[_DISTILLATION]


def as_in(model: nn.Module, file: Path) -> None:
    """Give a bare model the shapes that a file of a slim one has."""
    reshape(model, shapes_in(lincon.inspect(file)))


_DISTILLATION = "distillation"
_NARROWED = Phase(0.5), Phase(0.5, narrow, distil), Phase(0, undo)

PRUNED: dict[str, Scheme] = {
    **{
        f"imp{name}": s
        for name, s in tickets(weights_left, cut_weights, Phase(0, settle), make=vanilla).items()
    },
    **{f"rpg-imp{name}": s for name, s in tickets(dof_left, cut_free, make=halved).items()},
    "knapsack": Scheme(residual(vanilla), _NARROWED, takes_dof=False, shape=as_in, least=2),
    "rpg-knapsack": Scheme(residual(SHARING["rpg"].make), _NARROWED, shape=as_in, least=2),
}
"""Schemes by name. DoF are what is left; a table says what the model had before."""
