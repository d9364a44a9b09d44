"""A generator of your own: written, checked against the laws, used, saved.

python examples/generator.py
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import lincon
from lincon.generators import OneNonzero, register
from lincon.testing import check_generator


@register
class Mirror(OneNonzero):
    """The vector is read forwards and backwards in turn, with a sign for each lap."""

    name = "mirror"

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        lap, place = rows // self.dof, rows % self.dof
        backwards = lap % 2 == 1
        return torch.where(backwards, self.dof - 1 - place, place), 1 - lap % 4 // 2 * 2


def main() -> None:
    check_generator(Mirror(rows=50, dof=8))
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
    constraint = lincon.constrain(model, "mirror", dof=0.2)
    print(f"{constraint.dof} numbers for {constraint.rows} weights")
    model(torch.randn(4, 32)).square().sum().backward()
    with tempfile.TemporaryDirectory() as folder:
        lincon.save(model, Path(folder) / "model.safetensors")
        print(lincon.inspect(Path(folder) / "model.safetensors").groups[0].generator)


if __name__ == "__main__":
    main()
