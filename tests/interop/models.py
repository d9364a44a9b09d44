"""A small constrained model, built from any torch seed: what a tool saves of one must be right in another."""

from typing import Any

import torch
from torch import Tensor, nn

import lincon

SEEDS = [("ring", "model"), ("ring", "layer"), ("kronecker", "model"), ("hash", "model")]
"""Generators and modes that each tool meets."""


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 3))


def constrained(
    seed: int = 0, generator: str = "ring", materialize: str = "model", **options: Any
) -> nn.Sequential:
    """The network with its two matrices generated. The multipliers depend on the torch seed, G does not."""
    model = network(seed)
    lincon.constrain(model, generator, dof=0.3, materialize=materialize, **options)
    return model


def batch(items: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(items, 6, generator=generator)
    return inputs, torch.randint(3, (items,), generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[float]:
    """A few steps on batches of their own; the losses."""
    losses = []
    for step in range(steps):
        inputs, targets = batch(seed=step)
        loss: Tensor = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
