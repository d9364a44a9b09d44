"""What `constrain` draws from a seed: W, the multipliers, and a W₀ that is drawn. And files of format 2.

    python -m tests.golden.beginnings

writes them. What is there already is never written again.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lincon

FILE = Path(__file__).parent / "beginnings.json"

CHOICES: dict[str, tuple[Any, ...]] = {
    "scale": ("match", "isometric", None),
    "scope": ("model", "tensor"),
    "offset": (False, True, "seed"),
}

SMALLER: dict[str, Callable[[nn.Module], Any]] = {
    "pruned": lambda layers: lincon.prune(layers, 0.5),
    "quantised": lambda layers: lincon.quantize(layers, 8),
}
"""What is done to a model before it is saved."""


def model() -> nn.Sequential:
    """Weights that no version of torch draws in another way."""
    layers = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    with torch.no_grad():
        for number, layer in enumerate(layers):
            weight: Any = layer.weight
            values = torch.arange(1.0, weight.numel() + 1).sin() / (number + 1)
            weight.copy_(values.view_as(weight))
    return layers


def beginning(**choices: Any) -> dict[str, list[float]]:
    """Free vectors, multipliers and weights of a model that has just been constrained."""
    layers = model()
    constraint = lincon.constrain(layers, "ring", dof=8, seed=2024, **choices)
    found = {name: free.tolist() for name, free in constraint.free.items()}
    for group in constraint.groups:
        found[f"scales of {group.free}"] = list(group.ledger.scales)
    for name, weight in constraint.weights().items():
        found[name] = weight.detach().flatten().tolist()
    return found


def cases() -> list[dict[str, Any]]:
    """Every combination of `CHOICES`."""
    return [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]


def main() -> None:
    old: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    new = {str(choices): beginning(**choices) for choices in cases()}
    FILE.write_text(json.dumps(new | old, indent=0))
    for name, smaller in SMALLER.items():
        path = FILE.parent / f"{name}-0.safetensors"
        if path.exists():
            continue
        layers = model()
        constraint = lincon.constrain(layers, "ring", dof=16, seed=2024)
        smaller(layers)
        lincon.save(layers, path)
        weights = {name: w.detach().flatten().tolist() for name, w in constraint.weights().items()}
        path.with_name(f"weights.{name}-0.json").write_text(json.dumps(weights))


if __name__ == "__main__":
    main()
