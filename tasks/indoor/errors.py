"""How far depth and normals are from the truth, over all pixels where it is known."""

from math import pi

import torch
from torch import Tensor
from torchmetrics import Metric

from lincon import LinconError

RESOLUTION = 0.01
"""Degrees to which angles are rounded for their median."""

_BINS = round(180 / RESOLUTION) + 1


class Errors(Metric):
    """Errors of depth and of normals over all pixels seen that are known, in all processes.

    Sums are kept in float64. A prediction that is not finite is not left out: it makes the means of
    what it is part of nan or inf, misses `delta`, and counts as 180 degrees in the median. Normals
    are brought to unit length first, so a predicted zero vector is not finite either.

    `compute` gives scalars, float64, on the metric's device:
        depth_rmse: root of the mean squared error, metres.
        normal_rmse: root of the mean squared distance between unit vectors, from 0 to 2.
        angle_mean, angle_median: angles between normals, degrees; the median to half of
            `RESOLUTION`.
        abs_rel: mean of |predicted - true| / true depth.
        delta: share of pixels where the larger of predicted and true depth is less than 1.25 times
            the other.
    What no pixel is known of is nan. Tables that print percent, as the published one of both rmse
    does, show hundred times these.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    depths: Tensor
    squared_depth: Tensor
    relative: Tensor
    within: Tensor
    normals: Tensor
    squared_normal: Tensor
    angle: Tensor
    angles: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("depths", "within", "normals"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("squared_depth", "relative", "squared_normal", "angle"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("angles", torch.zeros(_BINS, dtype=torch.long), dist_reduce_fx="sum")

    def update(
        self, depth: Tensor, normals: Tensor, true_depth: Tensor, true_normals: Tensor
    ) -> None:
        """Count the pixels of n images.

        Args:
            depth, true_depth: (n, height, width), metres; the truth is nan where not known.
            normals, true_normals: (n, 3, height, width); the truth is nan where not known, be it in
                one component.

        Raises:
            LinconError: a shape is another; a true depth is not positive or not finite, or a true
                normal is zero or not finite, without being nan.
        """
        n, *size = _shape(true_depth)
        _check("depth", depth, (n, *size))
        _check("normals", normals, (n, 3, *size))
        _check("true_normals", true_normals, (n, 3, *size))
        depths = _known(depth, true_depth, ~true_depth.isnan())
        vectors = _known(
            normals.movedim(1, -1), true_normals.movedim(1, -1), ~true_normals.isnan().any(1)
        )
        _check_truth(depths[1], vectors[1])
        self._count_depths(*depths)
        self._count_normals(*vectors)

    def _count_depths(self, found: Tensor, true: Tensor) -> None:
        """(m,) each."""
        errors = found - true
        self.depths += len(true)
        self.squared_depth += errors.square().sum()
        self.relative += (errors.abs() / true).sum()
        self.within += ((found < 1.25 * true) & (true < 1.25 * found)).sum()

    def _count_normals(self, found: Tensor, true: Tensor) -> None:
        """(m, 3) each."""
        found, true = (vectors / vectors.norm(dim=1, keepdim=True) for vectors in (found, true))
        apart, together = (found - true).norm(dim=1), (found + true).norm(dim=1)
        angles = (
            2 * torch.atan2(apart, together) * 180 / pi
        )  # exact for small angles too, unlike an arc cosine
        rounded = (angles.nan_to_num(180) / RESOLUTION).round().long()
        self.normals += len(true)
        self.squared_normal += apart.square().sum()
        self.angle += angles.sum()
        self.angles += torch.bincount(rounded, minlength=_BINS)

    def compute(self) -> dict[str, Tensor]:
        """Errors by name, scalars."""
        return {
            "depth_rmse": (self.squared_depth / self.depths).sqrt(),
            "normal_rmse": (self.squared_normal / self.normals).sqrt(),
            "angle_mean": self.angle / self.normals,
            "angle_median": self._median(),
            "abs_rel": self.relative / self.depths,
            "delta": self.within.double() / self.depths,
        }

    def _median(self) -> Tensor:
        """The angle in the middle, of an even number the mean of both that are."""
        middle = torch.stack([(self.normals + 1) // 2, self.normals // 2 + 1])
        angles = torch.searchsorted(self.angles.cumsum(0), middle).double() * RESOLUTION
        return angles.mean().where(self.normals > 0, torch.nan)


def _known(found: Tensor, true: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    return found[known].double(), true[known].double()


def _check_truth(depths: Tensor, normals: Tensor) -> None:
    """(m,) and (m, 3), those that are known."""
    if not ((depths > 0) & depths.isfinite()).all():
        raise LinconError(
            "A true depth is not a positive finite number: mark pixels that are not known by nan."
        )
    if not (normals.any(1) & normals.isfinite().all(1)).all():
        raise LinconError(
            "A true normal is zero or infinite: mark pixels that are not known by nan."
        )


def _shape(true_depth: Tensor) -> torch.Size:
    if true_depth.ndim != 3:
        raise LinconError(
            f"Errors was given true_depth of shape {tuple(true_depth.shape)}; it is (n, height, "
            "width)."
        )
    return true_depth.shape


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise LinconError(
            f"Errors was given {name} of shape {tuple(tensor.shape)}; with this depth it is "
            f"{shape}."
        )
