"""The dense projection, regenerated as it is applied, against a stored matrix of 4 GB."""

from typing import Any

import pytest
import torch

from lincon.generators import Dense

ROWS, DOF = 1_000_000, 1_000


@pytest.fixture(autouse=True)
def _name_the_group(benchmark: Any) -> None:
    benchmark.group = f"dense, rows {ROWS:,}, dof {DOF:,}, float32"


def test_stored(benchmark: Any) -> None:
    matrix, free, out = torch.randn(ROWS, DOF), torch.randn(DOF), torch.empty(ROWS)
    benchmark.name = "product with the stored matrix"
    benchmark.extra_info["resident bytes"] = 4 * ROWS * DOF
    benchmark.pedantic(lambda: torch.mv(matrix, free, out=out), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("entries", ["rademacher", "normal"])
def test_regenerated(benchmark: Any, entries: str) -> None:
    generator, free, out = Dense(ROWS, DOF, entries=entries), torch.randn(DOF), torch.empty(ROWS)
    generator.unpack(free, 0, 10)
    benchmark.name = f"regenerated, {entries}"
    benchmark.extra_info["resident bytes"] = 0
    benchmark.pedantic(lambda: generator.unpack(free, out=out), rounds=5, warmup_rounds=1)


def test_adjoint(benchmark: Any) -> None:
    generator, grad = Dense(ROWS, DOF), torch.randn(ROWS)
    benchmark.name = "adjoint, rademacher"
    benchmark.pedantic(lambda: generator.adjoint(grad), rounds=5, warmup_rounds=1)
