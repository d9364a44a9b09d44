"""Pruning as schemes: lottery tickets of all weights or of a ring, and fewer channels.

Iterative magnitude pruning (Frankle and Carbin 2019) trains, removes the least important numbers,
sets the others back to their initial values (rewinding), and trains again, `ROUNDS` times over.
Each training has its share of the epochs and a learning-rate cycle of its own. The "-once" schemes
train, prune to the end at once, and continue training without rewinding. In an unconstrained model,
torch's own pruning utilities choose the weights. The "knapsack" schemes train, remove channels
until a share of the multiply-adds is left, and continue with inner distillation.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.nn.utils import prune

import lincon
from lincon.exporting import merged_copy
from lincon.tasks.classification.compression import knapsack
from lincon.tasks.classification.compression.channels import groups, reshape, shapes_in, slim
from lincon.tasks.classification.models.resnet import ResNet
from lincon.tasks.experiments.schemes.body import (
    Architecture,
    blueprint,
    body_weights,
    count_parameters,
)
from lincon.tasks.experiments.schemes.scheme import Begin, Make, Phase, Scheme, constrained, vanilla
from lincon.tasks.experiments.schemes.sharing import SHARING, pruned_places

if TYPE_CHECKING:
    from lincon.tasks.experiments.data.sets import Data

ROUNDS = 3
"""Prunings; each leaves the same share of the numbers before it."""

RING = 0.5
"""The ring before pruning, as a share of the body's weights; it has at least the final DoF."""

_early: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()

Cut = Callable[[nn.Module, int], None]


def halved(architecture: Architecture, dof: int, seed: int) -> nn.Module:
    """A ring of half the body's weights, to be pruned to ``dof``."""
    model = blueprint(architecture)
    half = round(RING * count_parameters(model, body_weights(model)))
    return constrained("ring").make(architecture, max(dof, half), seed)


def remember(model: nn.Module, dof: int, data: "Data") -> None:
    """Store the model's initial state, for rewinding."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    _early[model] = {name: tensor.detach().clone() for name, tensor in tensors}


def round_of(
    number: int, rounds: int, size: Callable[[nn.Module], int], cut: Cut, rewind: bool
) -> Begin:
    """Before training ``number``: prune, and rewind.

    ``size`` counts the numbers of a model, and ``cut`` prunes it to a number of them.
    """

    def begin(model: nn.Module, dof: int, data: "Data") -> None:
        whole, rounds_left = size(model), rounds - number + 1
        share = (dof / whole) ** (1 / rounds_left)
        cut(model, max(dof, round(whole * share)))
        if rewind:
            _rewind(model)

    return begin


def _rewind(model: nn.Module) -> None:
    """Set all numbers that are left back to their initial values."""
    state = model.state_dict()
    for name, value in _early[model].items():
        pruned = f"{name}_orig"  # torch's pruning renames a parameter
        state[pruned if pruned in state else name].copy_(value)


def weights_left(model: nn.Module) -> int:
    """Weights of the body that are not pruned."""
    masks = [
        getattr(module, f"{name}_mask", getattr(module, name))
        for module, name in pruned_places(model)
    ]
    return sum(int(mask.count_nonzero()) for mask in masks)


def cut_weights(model: nn.Module, keep: int) -> None:
    """Keep the weights of the body that are largest in magnitude, by torch's utilities."""
    excess = weights_left(model) - keep
    prune.global_unstructured(
        pruned_places(model), pruning_method=prune.L1Unstructured, amount=excess
    )


def dof_left(model: nn.Module) -> int:
    """Free numbers that are not pruned."""
    return sum(constraint.dof for constraint in lincon.constraints(model))


def cut_free(model: nn.Module, keep: int) -> None:
    """Keep the free numbers that move the weights most, and only their initial values."""
    for name, mask in lincon.prune(model, keep).items():
        early = _early.get(model)
        if early is not None:
            early[name] = early[name][mask]


def settle(model: nn.Module, dof: int, data: "Data") -> None:
    """Turn pruned weights into a pruned `identity`; its file holds the weights left and a mask."""
    remove: Any = prune.remove  # torch does not type it
    for module, name in pruned_places(model):
        remove(module, name)
    lincon.constrain(model, "identity", where=body_weights(model))
    lincon.prune(model, dof)


def tickets(
    what: str, size: Callable[[nn.Module], int], cut: Cut, *after: Phase, **scheme: Any
) -> dict[str, Scheme]:
    """The iterative scheme, and the one that prunes once; ``after`` follows the last training."""
    share = 1 / (ROUNDS + 1)
    rounds = (
        Phase(share, round_of(n, ROUNDS, size, cut, rewind=True)) for n in range(1, ROUNDS + 1)
    )
    once = Phase(0.5, round_of(1, 1, size, cut, rewind=False))
    return {
        "": Scheme(
            phases=(Phase(share, remember), *rounds, *after),
            min_epochs=ROUNDS + 1,
            about=f"{what}, pruned in {ROUNDS} rounds, each time trained from the initial values.",
            **scheme,
        ),
        "-once": Scheme(
            phases=(Phase(0.5), once, *after),
            min_epochs=2,
            about=f"{what}, pruned once after half of the epochs.",
            **scheme,
        ),
    }


def residual(make: Make) -> Make:
    """The same models; one whose channels cannot be pruned is refused before any training."""

    def checked(architecture: Architecture, dof: int, seed: int) -> nn.Module:
        model = make(architecture, dof, seed)
        groups(model)
        return model

    return checked


def narrow(model: nn.Module, dof: int, data: "Data") -> None:
    """Remove the channels that do not fit the budget, and add the distillation."""
    assert isinstance(model, ResNet)
    teacher, masks = merged_copy(model), knapsack.fit(model, data)
    slim(model, masks)
    distillation = knapsack.Distillation(model, teacher, masks)
    model.add_module(_DISTILLATION, distillation.to(next(model.parameters()).device))


def distil(model: nn.Module) -> Tensor:
    """The penalty that the training after `narrow` adds to the loss."""
    distillation = model.get_submodule(_DISTILLATION)
    assert isinstance(distillation, knapsack.Distillation)
    return distillation.penalty()


def undo(model: nn.Module, dof: int, data: "Data") -> None:
    """Remove the distillation again."""
    distillation = model.get_submodule(_DISTILLATION)
    assert isinstance(distillation, knapsack.Distillation)
    distillation.remove()
    del model._modules[_DISTILLATION]


def as_in(model: nn.Module, file: Path) -> None:
    """Give a bare model the shapes in a slim one's file."""
    reshape(model, shapes_in(lincon.inspect(file)))


_DISTILLATION = "distillation"
_NARROWED = Phase(0.5), Phase(0.5, narrow, distil), Phase(0, undo)
_OF_WEIGHTS = tickets("Unconstrained", weights_left, cut_weights, Phase(0, settle), make=vanilla)
_OF_RINGS = tickets("A ring of half the weights", dof_left, cut_free, make=halved)

PRUNED: dict[str, Scheme] = {
    **{f"imp{suffix}": scheme for suffix, scheme in _OF_WEIGHTS.items()},
    **{f"rpg-imp{suffix}": scheme for suffix, scheme in _OF_RINGS.items()},
    "knapsack": Scheme(
        residual(vanilla),
        _NARROWED,
        takes_dof=False,
        shape=as_in,
        min_epochs=2,
        about="Half of the epochs unconstrained, then with the channels that fit a budget.",
    ),
    "rpg-knapsack": Scheme(
        residual(SHARING["rpg"].make),
        _NARROWED,
        shape=as_in,
        min_epochs=2,
        about="As knapsack, of a ring.",
    ),
}
"""Schemes by name. Their DoF are those after pruning; a table shows those before."""
