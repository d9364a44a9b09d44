"""The LightningModule that trains a language model, and the bits that it needs for a byte."""

from math import log

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import Metric

from lincon.shapes import Float, Int64
from lincon.tasks.experiments.data.sets import Data
from lincon.tasks.experiments.task import Measure
from lincon.tasks.experiments.training.learner import Learner
from lincon.tasks.language.data.batch import Batch

MEASURES = (
    Measure(
        "bits_per_byte",
        "bits / byte",
        1,
        higher_is_better=False,
        digits=4,
        decides=True,
        worst=8.0,
    ),
    Measure("cross_entropy", "cross-entropy", 1, higher_is_better=False, digits=4),
    Measure("next_byte", "next byte %"),
)


class Surprise(Metric):
    """Over all bytes: the mean cross-entropy in nats and in bits, and the share that was likeliest."""

    nats: Tensor
    right: Tensor
    bytes: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("nats", "right", "bytes"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, logits: Float[Tensor, "n context 256"], following: Int64[Tensor, "n context"]
    ) -> None:
        self.nats += nats(logits, following).double() * following.numel()
        self.right += (logits.argmax(-1) == following).sum()
        self.bytes += following.numel()

    def compute(self) -> dict[str, Tensor]:
        mean = self.nats / self.bytes
        return {
            "bits_per_byte": mean / log(2),
            "cross_entropy": mean,
            "next_byte": self.right / self.bytes,
        }


class Reader(Learner):
    """The mean cross-entropy of the next byte, in nats.

    ``model``: (n, context) bytes -> (n, context, 256) logits.
    """

    def make_metric(self, data: Data) -> Surprise:
        return Surprise()

    def loss(self, batch: Batch) -> Tensor:
        return nats(self.model(batch.context), batch.following)

    def update_metric(self, batch: Batch) -> None:
        self.metric.update(self.model(batch.context), batch.following)


def nats(
    logits: Float[Tensor, "n context 256"], following: Int64[Tensor, "n context"]
) -> Float[Tensor, ""]:
    """The mean cross-entropy of a batch, in nats.

    >>> round(nats(torch.zeros(1, 2, 256), torch.tensor([[65, 66]])).item() / log(2), 3)
    8.0
    """
    return cross_entropy(
        rearrange(logits, "n context bytes -> (n context) bytes").float(),
        rearrange(following, "n context -> (n context)"),
    )
