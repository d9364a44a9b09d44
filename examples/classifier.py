"""Train a constrained classifier of handwritten digits; save it, load it, merge it.

python examples/classifier.py
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import lincon


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(512, 10),
    )  # fmt: skip


def main() -> None:
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target)

    torch.manual_seed(0)
    model = network()
    constraint = lincon.constrain(model, "ring", dof=0.1, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        for batch in torch.randperm(1297).split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    with torch.no_grad():
        outputs = model(x[1297:])
    accuracy = (outputs.argmax(1) == y[1297:]).float().mean().item()
    print(
        f"{constraint.dof:,} numbers for {constraint.rows:,} weights: {accuracy:.1%} of 500 images"
    )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        print(f"{lincon.save(model, path):,} bytes")
        fresh = network()
        lincon.load(fresh, path)
    with torch.no_grad():
        assert fresh(x[1297:]).equal(outputs)
        assert torch.allclose(lincon.merge(fresh)(x[1297:]), outputs, atol=1e-5)


if __name__ == "__main__":
    main()
