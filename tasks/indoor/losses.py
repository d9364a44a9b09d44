"""The losses: reverse Huber for the depth, and one minus the cosine for the normals.

Both are means over the pixels whose target is known, that is, finite. Predictions for other pixels
change neither loss nor gradient. Without any known pixel both losses are 0.
"""

import torch
from einops import reduce
from torch import Tensor

from lincon import LinconError
from lincon.shapes import Float

_NEAREST = 1e-3  # metres: predictions are clamped to it, so that all have a finite logarithm


def berhu(predicted: Float[Tensor, "*shape"], target: Float[Tensor, "..."]) -> Float[Tensor, ""]:
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

    >>> loss = berhu(torch.tensor([1.0, 2.0, 7.0]), torch.tensor([1.0, 1.0, torch.nan]))
    >>> round(loss.item(), 3)
    1.3
    """
    _check(predicted, target)
    known = target.isfinite()
    errors = torch.where(known, predicted - target, 0).abs()
    c = (errors.detach().amax() / 5).clamp(min=torch.finfo(errors.dtype).tiny)
    large = (errors.square() + c.square()) / (2 * c)
    return _mean(torch.where(errors <= c, errors, large), known)


def log_berhu(
    predicted: Float[Tensor, "*shape"], target: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """`berhu` of logarithms, so that the ratio of depths counts: SharpNet's loss of the depth.

    Args:
        predicted: depth in metres, of any shape. Below a millimetre it counts as a millimetre and
            has no gradient.
        target: of the same shape; a depth that is nan or not positive is not known.

    Returns:
        A scalar without a unit.

    Raises:
        LinconError: the shapes differ.

    >>> depth = torch.tensor([1.0, 2.0])
    >>> ratio = torch.tensor(2.0)
    >>> log_berhu(ratio * depth, depth).item() == berhu(ratio.log(), torch.tensor(0.0)).item()
    True
    """
    _check(predicted, target)
    logarithms = target.log()
    harmless = predicted.where(logarithms.isfinite(), 1)  # where not known
    return berhu(harmless.clamp(min=_NEAREST).log(), logarithms)


def cosine(predicted: Float[Tensor, "*shape"], target: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """One minus the cosine of the angle between unit vectors: SharpNet's loss of the normals.

    Args:
        predicted: (n, 3, height, width), unit vectors.
        target: likewise; a vector with a nan in it is not known.

    Returns:
        A scalar from 0 to 2.

    Raises:
        LinconError: the shapes differ.

    >>> right, up = torch.eye(3)[:2, :, None, None].split(1)
    >>> cosine(right, up).item(), cosine(right, -right).item()
    (1.0, 2.0)
    """
    _check(predicted, target)
    known = target.isfinite().all(1)
    each_known = known.unsqueeze(1)
    products = predicted.where(each_known, 0) * target.where(each_known, 0)
    cosines = reduce(products, "n xyz height width -> n height width", "sum")
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
