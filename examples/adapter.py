"""Fine-tune with 50 numbers: an adapter of a kilobyte that loads on the right base alone.

python examples/adapter.py
"""

import copy
import tempfile
from pathlib import Path

import torch
from torch import nn

import lincon


def main() -> None:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    x = torch.randn(256, 16)
    y = x[:, :4].argmax(1)

    model = copy.deepcopy(base)
    lincon.constrain(model, "ring", dof=50, offset=True)
    model.requires_grad_(False)
    model.free.requires_grad_(True)
    optimizer = torch.optim.Adam([model.free], lr=1e-2)
    first = last = 0.0
    for step in range(200):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item(), last) if step == 0 else (first, loss.item())
    print(f"training loss {first:.2f} -> {last:.2f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        print(f"{lincon.save(model, path, only='trained'):,} bytes")
        again = copy.deepcopy(base)
        lincon.load(again, path)
        assert again(x).equal(model(x))
        try:
            lincon.load(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)), path)
        except lincon.LinconError as refusal:
            print(f"another base is refused: {refusal}")


if __name__ == "__main__":
    main()
