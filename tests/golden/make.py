"""Write the golden files: one model for every generator and option set, and the weights it generates.

Run once a format or a generator's version: `python -m tests.golden.make`. Existing files are never overwritten.
"""

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

import lincon
from tests.cases import GIVEN, OPTIONS, make
from tests.models import Raw

HERE = Path(__file__).parent


def _example(
    name: str, options: dict[str, object], rows: int, dof: int, seed: int
) -> lincon.Generator:
    return make(name, rows, 9, 6, options)


def main() -> None:
    for name, choices in OPTIONS.items():
        for number, options in enumerate(choices):
            path = HERE / f"{name}-{number}.safetensors"
            if path.exists():
                continue
            model = Raw()
            if name in {"identity", *GIVEN}:
                lincon.constrain(model, partial(_example, name, options), scale=None)
            else:
                lincon.constrain(model, name, dof=9, seed=2024, **options)  # type: ignore[arg-type]
            _keep(model, path)
    for name, offset in (("drawn", "seed"), ("adapter", True)):
        path = HERE / f"{name}-0.safetensors"
        if not path.exists():
            model = Raw()
            lincon.constrain(model, "ring", dof=9, seed=2024, offset=offset)
            model.requires_grad_(name != "adapter")
            _keep(model, path, only="trained" if name == "adapter" else None)


def _keep(model: Raw, path: Path, only: str | None = None) -> None:
    with torch.no_grad():
        model.get_parameter("free").copy_(
            torch.arange(model.get_parameter("free").numel()) / 16 - 0.25
        )
    lincon.save(model, path, only=only)
    lincon.merge(model)
    save_file(model.state_dict(), HERE / f"weights.{path.name}")


if __name__ == "__main__":
    main()
