"""The parameters of a model in two groups, with and without weight decay: `param_groups`."""

from typing import Any

from torch import nn

from lincon.attaching.binding import check_complete
from lincon.attaching.constraint import check_module, constraints
from lincon.errors import TargetError

_NORMS = nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters of a model, for an optimiser, by whether they decay.

    Free vectors decay, since they stand for weights, and so do unconstrained weights of two or more
    dimensions. Norms, biases and other vectors do not, and neither does a free vector that generates
    nothing else. Decay of W pulls Ŵ = W₀ + G W towards W₀, or towards 0 without an offset. Recipes
    that tell weights by their dimensions take W, a vector, for a bias.

    Args:
        model: a model, constrained or not.
        weight_decay: of the parameters that decay.

    Returns:
        Up to two groups, `{"params": [...], "weight_decay": ...}`, none of them empty.

    Raises:
        TargetError: the model is a part of a constrained model without its free vector, or nothing
            in it is trainable.

    >>> import lincon, torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    >>> constraint = lincon.constrain(model, "ring", dof=0.5, where="0")
    >>> groups = lincon.param_groups(model, weight_decay=0.05)
    >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
    [(2, 0.05), (4, 0.0)]
    >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
    """
    check_module(model)
    check_complete(model)
    decays = _decays(model)
    if not decays:
        raise TargetError(f"This {type(model).__name__} has no trainable parameter.")
    groups = [
        {"params": [p for p, own in decays.items() if own], "weight_decay": weight_decay},
        {"params": [p for p, own in decays.items() if not own], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _decays(model: nn.Module) -> dict[nn.Parameter, bool]:
    """Whether each trainable parameter decays."""
    vectors = [vector for constraint in constraints(model) for vector in constraint.vectors]
    free = {id(vector.parameter): vector.group.has_weights for vector in vectors}
    decays: dict[nn.Parameter, bool] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                is_weight = parameter.dim() >= 2 and name != "bias"
                own = is_weight and not isinstance(module, _NORMS)
                decays[parameter] = free.get(id(parameter), own)
    return decays
