"""A baseline that does not look at the bytes before: how often each byte occurs in training."""

import torch
from einops import repeat

from lincon.tasks.language.data.text import Text
from lincon.tasks.language.learner import Surprise
from lincon.tasks.language.models.gpt import BYTES


def baseline(data: Text) -> dict[str, float]:
    """Every measure on the test part of the frequencies in training, each count one more."""
    counts = torch.ones(BYTES)
    for batch in data.evaluation_loader(train=True):
        counts += torch.bincount(batch.following.flatten(), minlength=BYTES)
    frequencies = (counts / counts.sum()).log()
    surprise = Surprise()
    for batch in data.evaluation_loader(train=False):
        n, context = batch.following.shape
        logits = repeat(frequencies, "bytes -> n context bytes", n=n, context=context)
        surprise.update(logits, batch.following)
    return {name: float(value) for name, value in surprise.compute().items()}
