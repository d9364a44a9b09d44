"""PCKh (Andriluka et al. 2014): the share of joints predicted within half a head size."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lincon import LinconError
from lincon.shapes import Float, Shaped
from lincon.tasks.pose.skeleton import JOINTS, UNSCORED

GROUPS = {
    "head": (9,),
    "shoulder": (12, 13),
    "elbow": (11, 14),
    "wrist": (10, 15),
    "hip": (2, 3),
    "knee": (1, 4),
    "ankle": (0, 5),
}
"""Joints reported together, as in Microsoft's and HRNet's evaluation.

The head is its top alone. MPII's own scripts average it with the upper neck, which counts here in
the means only.
"""

SCORED = tuple(joint for joint in range(len(JOINTS)) if joint not in UNSCORED)
"""The fourteen joints that count."""


class PCKh(Metric):
    """Correct joints as fractions of the annotated ones, over all people and all processes.

    A joint is correct within `threshold` head sizes, the bound included, as in MPII's and
    Microsoft's evaluations (pytorch-pose leaves the bound out). Joints that are not known never
    count; nor do pelvis and thorax. A prediction that is NaN is wrong. People whose head size is
    not a positive finite number cannot be scored and are left out.

    `compute` gives scalars on the metric's device:
        pckh: mean over all annotated joints, as Microsoft and HRNet report it.
        pckh_joints: mean over the fractions of the scored joints, each with the same weight, as
            pytorch-pose reports it. Joints that nobody has are left out.
        head, shoulder, elbow, wrist, hip, knee, ankle: the same mean over the joints of a group.
    A mean over no joint is nan.

    Args:
        threshold: head sizes; positive.

    >>> joints = torch.zeros(1, 16, 2)
    >>> predicted = joints.clone()
    >>> predicted[0, 9] = 3.0  # the head top, off by more than half a head size of 4 pixels
    >>> metric = PCKh()
    >>> metric.update(predicted, joints, torch.ones(1, 16, dtype=torch.bool), torch.tensor([4.0]))
    >>> fractions = metric.compute()
    >>> round(fractions["pckh"].item(), 3), fractions["head"].item(), fractions["knee"].item()
    (0.929, 0.0, 1.0)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    correct: Tensor
    annotated: Tensor

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        if not threshold > 0:
            raise LinconError(
                f"PCKh at threshold {threshold}: it must be positive; usual are 0.5 and 0.1."
            )
        self.threshold = threshold
        none = torch.zeros(len(JOINTS), dtype=torch.long)
        self.add_state("correct", none, dist_reduce_fx="sum")
        self.add_state("annotated", none.clone(), dist_reduce_fx="sum")

    def update(
        self,
        predicted: Float[Tensor, "..."],
        joints: Float[Tensor, "..."],
        known: Shaped[Tensor, "..."],
        head: Float[Tensor, "..."],
    ) -> None:
        """Count the joints of n people.

        Args:
            predicted, joints: (n, 16, 2), pixels of the same picture.
            known: (n, 16), bool: joints that are annotated.
            head: (n,), head sizes in the same pixels.

        Raises:
            LinconError: another shape.
        """
        people = len(head)
        _check("predicted", predicted, (people, len(JOINTS), 2))
        _check("joints", joints, (people, len(JOINTS), 2))
        _check("known", known, (people, len(JOINTS)))
        _check("head", head, (people,))
        counted = known.bool() & ((head > 0) & head.isfinite()).unsqueeze(1)
        near = (predicted - joints).norm(dim=-1) <= self.threshold * head.unsqueeze(1)
        self.correct += (near & counted).sum(0)
        self.annotated += counted.sum(0)

    def compute(self) -> dict[str, Float[Tensor, ""]]:
        """Fractions by name, scalars."""
        fractions = self.correct / self.annotated
        scored = list(SCORED)
        return {
            "pckh": self.correct[scored].sum() / self.annotated[scored].sum(),
            "pckh_joints": fractions[scored].nanmean(),
            **{group: fractions[list(members)].nanmean() for group, members in GROUPS.items()},
        }


def _check(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise LinconError(
            f"PCKh was given {name} of shape {tuple(tensor.shape)}; with these head sizes it is "
            f"{shape}."
        )
