"""Unpack and adjoint of every generator at the sizes of ResNet-34's block weights, against what one would do otherwise.

The reference is `out.copy_(weights)`: reading and writing Ŵ once. It is timed before every single round of what is
measured, so that a machine whose speed drifts, or a cache that is warm, is the same for both. The authors' way is an
int64 index table and a float mask, `free[index] * mask`, which keeps 12 bytes a weight; UniLora's (PEFT) is
`free[index] * scale[index]`.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lincon.generators import Fastfood, Fold, Hash, Kronecker, Random, Ring, Sparse

ROWS = 21_258_240
DOFS = [42_516, 46_080, 2_359_296, 5_580_288, 11_160_576]  # the first is no multiple of a tile


def steps(generator: Any, free: Tensor, grad: Tensor) -> Callable[[], None]:
    """Unpack and adjoint through autograd, as in a training step."""
    leaf = free.clone().requires_grad_()

    def run() -> None:
        leaf.grad = None
        generator.unpack(leaf).backward(grad)

    return run


def alternatives(dof: int) -> dict[str, tuple[Callable[[Tensor], Tensor], int]]:
    """Name -> (Ŵ of a free vector, resident bytes)."""
    index, mask = torch.randint(dof, (ROWS,)), torch.randint(0, 2, (ROWS,)).float() * 2 - 1
    scale = torch.bincount(index, minlength=dof).clamp(min=1).float().rsqrt()
    return {
        "authors: table and mask": (lambda w: w[index] * mask, 12 * ROWS),
        "UniLora: table and scale": (lambda w: w[index] * scale[index], 8 * ROWS + 4 * dof),
    }


def resident(generator: Any) -> int:
    """Bytes of the tensors that a generator keeps."""
    seen: set[int] = set()

    def size(thing: Any) -> int:
        if isinstance(thing, Tensor) and thing.data_ptr() not in seen:
            seen.add(thing.data_ptr())
            return thing.numel() * thing.element_size()
        if hasattr(thing, "__dataclass_fields__"):
            return sum(size(v) for v in vars(thing).values())
        if isinstance(thing, dict):
            return sum(size(v) for v in thing.values())
        return sum(size(v) for v in thing) if isinstance(thing, tuple | list) else 0

    return sum(size(value) for name, value in vars(generator).items() if name != "_recycler")


@pytest.mark.parametrize("dof", DOFS)
class TestUnpack:
    @pytest.fixture(autouse=True)
    def _group(self, benchmark: Any, dof: int) -> None:
        benchmark.group = f"unpack, rows {ROWS:,}, dof {dof:,}, float32"
        self.free, self.weights, self.out = torch.randn(dof), torch.randn(ROWS), torch.empty(ROWS)
        self.other = torch.empty(ROWS)

    def run(self, benchmark: Any, name: str, function: Callable[[], Any], rounds: int, **note: Any) -> None:
        copies: list[float] = []

        def copy() -> None:
            start = time.perf_counter()
            self.other.copy_(self.weights)
            copies.append(time.perf_counter() - start)

        def once() -> None:  # the result is let go, as a training step lets it go
            function()

        benchmark.name = name
        benchmark.extra_info.update(note)
        benchmark.pedantic(once, setup=copy, rounds=rounds, warmup_rounds=1, iterations=1)
        benchmark.extra_info["reference"] = statistics.median(copies)

    def test_copy(self, benchmark: Any, dof: int) -> None:
        self.run(benchmark, "copy into a buffer", lambda: self.out.copy_(self.weights), 31)

    def test_clone(self, benchmark: Any, dof: int) -> None:
        self.run(benchmark, "clone", lambda: self.weights.clone(), 15)

    def test_ring(self, benchmark: Any, dof: int) -> None:
        ring = Ring(ROWS, dof)
        ring.unpack(self.free, out=self.out)
        note = {"tile": ring.tile, "resident bytes": resident(ring)}
        self.run(benchmark, "ring into a buffer", lambda: ring.unpack(self.free, out=self.out), 31, **note)

    def test_ring_fresh(self, benchmark: Any, dof: int) -> None:
        ring = Ring(ROWS, dof)
        self.run(benchmark, "ring", lambda: ring.unpack(self.free), 15)

    def test_ring_adjoint(self, benchmark: Any, dof: int) -> None:
        ring = Ring(ROWS, dof)
        self.run(benchmark, "ring adjoint", lambda: ring.adjoint(self.weights), 15)

    def test_ring_step(self, benchmark: Any, dof: int) -> None:
        self.run(benchmark, "ring unpack + adjoint", steps(Ring(ROWS, dof), self.free, self.weights), 15)

    @pytest.mark.parametrize("name", ["authors: table and mask", "UniLora: table and scale"])
    def test_alternative(self, benchmark: Any, dof: int, name: str) -> None:
        unpack, kept = alternatives(dof)[name]
        self.run(benchmark, name, lambda: unpack(self.free), 5, **{"resident bytes": kept})

    @pytest.mark.parametrize("name", ["authors: table and mask", "UniLora: table and scale"])
    def test_alternative_step(self, benchmark: Any, dof: int, name: str) -> None:
        unpack, leaf = alternatives(dof)[name][0], self.free.clone().requires_grad_()

        def run() -> None:
            leaf.grad = None
            unpack(leaf).backward(self.weights)

        self.run(benchmark, f"{name}, with its backward", run, 3)

    @pytest.mark.parametrize("cls", [Hash, Random, Fold, Fastfood, Kronecker])
    def test_others(self, benchmark: Any, dof: int, cls: Any) -> None:
        generator = cls(ROWS, dof)
        generator.unpack(self.free)
        self.run(
            benchmark,
            f"{generator.name} unpack + adjoint",
            steps(generator, self.free, self.weights),
            3,
            **{"resident bytes": resident(generator)},
        )

    def test_sparse(self, benchmark: Any, dof: int) -> None:
        if dof > DOFS[0]:
            pytest.skip("dof √rows nonzeros: minutes at this size")
        sparse = Sparse(ROWS, dof)
        self.run(benchmark, "sparse unpack + adjoint", steps(sparse, self.free, self.weights), 1)
