"""Errors of predicted depth and normals, over all pixels where the truth is known."""

from math import pi

import torch
from einops import rearrange
from torch import Tensor
from torchmetrics import Metric

from lincon import LinconError
from lincon.shapes import Float, Float64

RESOLUTION = 0.01
"""Degrees to which angles are rounded for their median."""

_BINS = round(180 / RESOLUTION) + 1


class Errors(Metric):
    """Errors of depth and of normals over all known pixels, in all processes.

    Sums are kept in float64. A prediction that is not finite counts too: its mean becomes nan or
    inf, it misses `delta`, and it is 180 degrees off in the median. Normals are first brought to
    unit length, so a predicted zero vector is not finite either.

    `compute` gives scalars, float64, on the metric's device:
        depth_rmse: root of the mean squared error, metres.
        normal_rmse: root of the mean squared distance between unit vectors, from 0 to 2.
        angle_mean, angle_median: angles between normals, degrees; the median to half of
            `RESOLUTION`.
        abs_rel: mean of |predicted - true| / true depth.
        delta: share of pixels where the larger of predicted and true depth is less than 1.25 times
            the other.
    An error of which no pixel is known is nan. Tables that print percent, as the published one does
    of both rmse, show a hundred times these.

    >>> depth = torch.full((1, 2, 2), 3.0)
    >>> normals = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    >>> metric = Errors()
    >>> metric.update(depth + 0.5, normals, depth, normals)
    >>> errors = metric.compute()
    >>> errors["depth_rmse"].item(), errors["delta"].item(), errors["angle_mean"].item()
    (0.5, 1.0, 0.0)
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
        self,
        depth: Float[Tensor, "..."],
        normals: Float[Tensor, "..."],
        true_depth: Float[Tensor, "..."],
        true_normals: Float[Tensor, "..."],
    ) -> None:
        """Count the pixels of n images.

        Args:
            depth, true_depth: (n, height, width), metres; the truth is nan where not known.
            normals, true_normals: (n, 3, height, width); a true normal with a nan in it is not
                known.

        Raises:
            LinconError: another shape; a true depth that is not positive, zero true normals, or
                infinite values of either.
        """
        n, *size = _shape(true_depth)
        _check("depth", depth, (n, *size))
        _check("normals", normals, (n, 3, *size))
        _check("true_normals", true_normals, (n, 3, *size))
        known_depth = ~true_depth.isnan()
        depths, true_depths = depth[known_depth].double(), true_depth[known_depth].double()
        vectors, true_vectors = (
            rearrange(part, "n xyz height width -> n height width xyz")
            for part in (normals, true_normals)
        )
        known_normals = ~true_vectors.isnan().any(-1)
        vectors, true_vectors = (
            vectors[known_normals].double(),
            true_vectors[known_normals].double(),
        )
        _check_truth(true_depths, true_vectors)
        self._count_depths(depths, true_depths)
        self._count_normals(vectors, true_vectors)

    def _count_depths(
        self, predicted: Float64[Tensor, " pixels"], true: Float64[Tensor, " pixels"]
    ) -> None:
        errors = predicted - true
        self.depths += len(true)
        self.squared_depth += errors.square().sum()
        self.relative += (errors.abs() / true).sum()
        self.within += ((predicted < 1.25 * true) & (true < 1.25 * predicted)).sum()

    def _count_normals(
        self, predicted: Float64[Tensor, "pixels 3"], true: Float64[Tensor, "pixels 3"]
    ) -> None:
        predicted = predicted / predicted.norm(dim=1, keepdim=True)
        true = true / true.norm(dim=1, keepdim=True)
        apart, together = (predicted - true).norm(dim=1), (predicted + true).norm(dim=1)
        # This is exact for small angles too, unlike an arc cosine.
        angles = 2 * torch.atan2(apart, together) * 180 / pi
        rounded = (angles.nan_to_num(180) / RESOLUTION).round().long()
        self.normals += len(true)
        self.squared_normal += apart.square().sum()
        self.angle += angles.sum()
        self.angles += torch.bincount(rounded, minlength=_BINS)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
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
        """The middle angle; of an even number of angles, the mean of the two middle ones."""
        middle = torch.stack([(self.normals + 1) // 2, self.normals // 2 + 1])
        angles = torch.searchsorted(self.angles.cumsum(0), middle).double() * RESOLUTION
        return angles.mean().where(self.normals > 0, torch.nan)


def _check_truth(depths: Tensor, normals: Tensor) -> None:
    """Refuse depths (m,) and normals (m, 3), all of them known, that cannot be true."""
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
