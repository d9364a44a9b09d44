"""PCKh (Andriluka et al. 2014): the share of joints found within half a head size of where they are."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lincon import LinconError
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
"""Joints reported together, as Microsoft's and HRNet's evaluation does: the head is its top alone (MPII's own scripts
average it with the upper neck, which counts here in the means only)."""

SCORED = tuple(joint for joint in range(len(JOINTS)) if joint not in UNSCORED)
"""The fourteen joints that count."""


class PCKh(Metric):
    """Correct joints as fractions of the annotated ones, over all people seen, in all processes.

    A joint is correct within `threshold` head sizes, the bound included, as MPII's and Microsoft's
    evaluations have it (pytorch-pose leaves the bound out). Joints that are not known never count,
    pelvis and thorax neither. A prediction that is NaN is wrong. People whose head size is not a
    positive finite number cannot be scored and are left out.

    `compute` gives scalars on the metric's device:
        pckh: mean over annotated joints, so that a joint weighs as often as it is annotated:
            Microsoft's and HRNet's.
        pckh_joints: mean over the scored joints' own fractions, each weighing the same:
            pytorch-pose's. Joints that nobody has are left out.
        head, shoulder, elbow, wrist, hip, knee, ankle: mean over the joints of the group, likewise.
    What nobody has is nan.

    Args:
        threshold: head sizes; positive.
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
        self.add_state("correct", torch.zeros(len(JOINTS), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state(
            "annotated", torch.zeros(len(JOINTS), dtype=torch.long), dist_reduce_fx="sum"
        )

    def update(self, predicted: Tensor, joints: Tensor, known: Tensor, head: Tensor) -> None:
        """Count the joints of n people.

        Args:
            predicted, joints: (n, 16, 2), in pixels of one and the same picture.
            known: (n, 16), bool: joints that are annotated.
            head: (n,), head sizes in the same pixels.

        Raises:
            LinconError: a shape is another.
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

    def compute(self) -> dict[str, Tensor]:
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
