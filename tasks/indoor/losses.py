"""What a network is trained by: the reverse Huber loss of the depth, and one minus the cosine of the normals.

Both are means over the pixels whose target is known, that is finite. What is predicted elsewhere
changes neither a loss nor a gradient, whatever it is; where nothing is known both are 0.
"""

import torch
from torch import Tensor

from lincon import LinconError

_NEAREST = 1e-3  # no prediction counts as nearer, so that all have a finite logarithm


def berhu(predicted: Tensor, target: Tensor) -> Tensor:
    """The reverse Huber loss (Laina et al. 2016): |e| up to c, and (e² + c²) / 2c above.

    c is a fifth of the largest error in the batch and counts as a constant: its gradient, which
    SharpNet's code lets through, would make the largest error larger.

    Args:
        predicted: of any shape.
        target: of the same shape; nan where not known.

    Returns:
        A scalar in the unit of the target.

    Raises:
        LinconError: the shapes differ.
    """
    _check(predicted, target)
    known = target.isfinite()
    errors = torch.where(known, predicted - target, 0).abs()
    c = (errors.detach().amax() / 5).clamp(min=torch.finfo(errors.dtype).tiny)
    return _mean(torch.where(errors <= c, errors, (errors.square() + c.square()) / (2 * c)), known)


def log_berhu(predicted: Tensor, target: Tensor) -> Tensor:
    """`berhu` of logarithms, so that the ratio of depths counts: SharpNet's loss of the depth.

    Args:
        predicted: depth in metres, of any shape; below a millimetre it counts as a millimetre,
            without a gradient.
        target: of the same shape; nan where not known, and what is not positive is not known
            either.

    Returns:
        A scalar without a unit.

    Raises:
        LinconError: the shapes differ.
    """
    _check(predicted, target)
    logarithms = target.log()
    inside = predicted.where(logarithms.isfinite(), 1)
    return berhu(inside.clamp(min=_NEAREST).log(), logarithms)


def cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine of the angle between unit vectors: SharpNet's loss of the normals.

    Args:
        predicted: (n, 3, height, width), unit vectors.
        target: likewise; nan where not known, be it in one component.

    Returns:
        A scalar from 0 to 2.

    Raises:
        LinconError: the shapes differ.
    """
    _check(predicted, target)
    known = target.isfinite().all(1)
    inside = known.unsqueeze(1)
    cosines = (predicted.where(inside, 0) * target.where(inside, 0)).sum(1)
    return _mean((1 - cosines).where(known, 0), known)


def _mean(losses: Tensor, known: Tensor) -> Tensor:
    return losses.sum() / known.sum().clamp(min=1)


def _check(predicted: Tensor, target: Tensor) -> None:
    if predicted.shape != target.shape:
        raise LinconError(
            f"A prediction of shape {tuple(predicted.shape)} for a target of shape "
            f"{tuple(target.shape)}: they must be equal; compare one sub-network's output at a "
            "time."
        )
