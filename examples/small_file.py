"""From training to a file of 4 bits a number, and to ONNX (with the extra `export`).

python examples/small_file.py
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

import lincon
from lincon.exporting import export


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 8))
    x = torch.randn(512, 32)
    y = x[:, :8].argmax(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {"unconstrained": lincon.save(model, folder / "dense.safetensors")}
        lincon.constrain(model, "ring", dof=0.2)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(100):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        sizes["a fifth of the DoF"] = lincon.save(model, folder / "ring.safetensors")
        lincon.prune(model, 0.5)
        sizes["pruned to a tenth"] = lincon.save(model, folder / "pruned.safetensors")
        lincon.quantize(model, bits=4)
        sizes["in 4 bits"] = lincon.save(model, folder / "small.safetensors")
        for what, size in sizes.items():
            print(f"{what:20}{size:8,} bytes")
        gap = export(model, folder / "model.onnx", x[:4])
        print(f"ONNX reproduces the outputs to {gap:.1e} of the largest")


if __name__ == "__main__":
    main()
