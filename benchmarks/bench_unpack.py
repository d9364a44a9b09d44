"""Unpack and adjoint of the generators at the sizes of two ResNets' block weights, against what one would do otherwise.

The reference is `out.copy_(weights)`: reading and writing Ŵ once. It is timed before every single round of what is
measured, so that a machine whose speed drifts, or a cache that is warm, is the same for both. The authors' way is an
int64 index table and a float mask, `free[index] * mask`, which keeps 12 bytes a weight; UniLora's (PEFT) is
`free[index] * scale[index]`.

Two generators are not here: dense, with 10^12 entries at the smallest of these sizes (see bench_dense.py), and
nullspace, whose dof is what its equalities leave.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lincon.generator import Generator
from lincon.generators import (
    Codebook,
    Fastfood,
    Fold,
    Hash,
    Identity,
    Kronecker,
    Lego,
    Mask,
    Matrix,
    Part,
    Random,
    Ring,
    Sparse,
)

RESNET_18, RESNET_34 = 11_157_504, 21_258_240
SIZES = [
    *((RESNET_18, dof) for dof in (46_080, 2_359_296, 5_580_288)),
    *(
        (RESNET_34, dof) for dof in (42_516, 46_080, 2_359_296, 5_580_288, 11_160_576)
    ),  # 42,516: no multiple of a tile
]


def one_a_row(rows: int, dof: int) -> Matrix:
    """A stored sparse matrix of one random entry a row."""
    indptr, indices = torch.arange(rows + 1), torch.randint(dof, (rows,))
    return Matrix(rows, dof, indptr=indptr, indices=indices, values=torch.ones(rows))


def lego(rows: int, dof: int) -> Lego:
    """Legos of at most 64 x 9 entries, of which each filter is a random one."""
    fan = max(d for d in range(1, 577) if rows % d == dof % d == 0)
    select = torch.randint(dof // fan, (1, rows // fan))
    return Lego(rows, dof, select=select, coefficient=torch.ones(select.shape))


OTHERS: dict[str, Callable[[int, int], Generator]] = {
    "hash": Hash,
    "random": Random,
    "fold": Fold,
    "fastfood": Fastfood,
    "kronecker": Kronecker,
    "codebook": lambda rows, dof: Codebook(rows, dof, index=torch.randint(dof, (rows,))),
    "lego": lego,
    "matrix": one_a_row,
    "part": lambda rows, dof: Part.of(Ring(rows, 2 * dof), torch.arange(2 * dof) % 2 == 0),
    "mask": lambda rows, dof: Mask.of(Ring(rows, dof), torch.arange(rows) % 2 == 0),
    "identity": lambda rows, dof: Identity(rows, rows),
}


def steps(generator: Any, free: Tensor, grad: Tensor) -> Callable[[], None]:
    """Unpack and adjoint through autograd, as in a training step."""
    leaf = free.clone().requires_grad_()

    def run() -> None:
        leaf.grad = None
        generator.unpack(leaf).backward(grad)

    return run


def alternatives(rows: int, dof: int) -> dict[str, tuple[Callable[[Tensor], Tensor], int]]:
    """Name -> (Ŵ of a free vector, resident bytes)."""
    index, mask = torch.randint(dof, (rows,)), torch.randint(0, 2, (rows,)).float() * 2 - 1
    scale = torch.bincount(index, minlength=dof).clamp(min=1).float().rsqrt()
    return {
        "authors: table and mask": (lambda w: w[index] * mask, 12 * rows),
        "UniLora: table and scale": (lambda w: w[index] * scale[index], 8 * rows + 4 * dof),
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


@pytest.mark.parametrize(("rows", "dof"), SIZES)
class TestUnpack:
    @pytest.fixture(autouse=True)
    def _group(self, benchmark: Any, rows: int, dof: int) -> Iterator[None]:
        benchmark.group = f"unpack, rows {rows:,}, dof {dof:,}, float32"
        self.free, self.weights, self.out = torch.randn(dof), torch.randn(rows), torch.empty(rows)
        self.other = torch.empty(rows)
        yield
        self.__dict__.clear()  # the runner keeps this object until all are done

    def run(
        self, benchmark: Any, name: str, function: Callable[[], Any], rounds: int, **note: Any
    ) -> None:
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

    def test_copy(self, benchmark: Any, rows: int, dof: int) -> None:
        self.run(benchmark, "copy into a buffer", lambda: self.out.copy_(self.weights), 31)

    def test_clone(self, benchmark: Any, rows: int, dof: int) -> None:
        self.run(benchmark, "clone", lambda: self.weights.clone(), 15)

    def test_ring(self, benchmark: Any, rows: int, dof: int) -> None:
        ring = Ring(rows, dof)
        ring.unpack(self.free, out=self.out)
        note = {"tile": ring.tile, "resident bytes": resident(ring)}
        self.run(
            benchmark,
            "ring into a buffer",
            lambda: ring.unpack(self.free, out=self.out),
            31,
            **note,
        )

    def test_ring_fresh(self, benchmark: Any, rows: int, dof: int) -> None:
        ring = Ring(rows, dof)
        self.run(benchmark, "ring", lambda: ring.unpack(self.free), 15)

    def test_ring_adjoint(self, benchmark: Any, rows: int, dof: int) -> None:
        ring = Ring(rows, dof)
        self.run(benchmark, "ring adjoint", lambda: ring.adjoint(self.weights), 15)

    def test_ring_step(self, benchmark: Any, rows: int, dof: int) -> None:
        self.run(
            benchmark, "ring unpack + adjoint", steps(Ring(rows, dof), self.free, self.weights), 15
        )

    @pytest.mark.parametrize("name", ["authors: table and mask", "UniLora: table and scale"])
    def test_alternative(self, benchmark: Any, rows: int, dof: int, name: str) -> None:
        unpack, kept = alternatives(rows, dof)[name]
        self.run(benchmark, name, lambda: unpack(self.free), 5, **{"resident bytes": kept})

    @pytest.mark.parametrize("name", ["authors: table and mask", "UniLora: table and scale"])
    def test_alternative_step(self, benchmark: Any, rows: int, dof: int, name: str) -> None:
        unpack, leaf = alternatives(rows, dof)[name][0], self.free.clone().requires_grad_()

        def run() -> None:
            leaf.grad = None
            unpack(leaf).backward(self.weights)

        self.run(benchmark, f"{name}, with its backward", run, 3)

    @pytest.mark.parametrize("name", OTHERS)
    def test_others(self, benchmark: Any, rows: int, dof: int, name: str) -> None:
        if name == "identity" and (rows, dof) not in (SIZES[0], SIZES[-1]):
            pytest.skip("it has no dof to choose")
        generator = OTHERS[name](rows, dof)
        free = torch.randn(generator.dof)
        generator.unpack(free)
        note = {"resident bytes": resident(generator)}
        self.run(
            benchmark, f"{name} unpack + adjoint", steps(generator, free, self.weights), 3, **note
        )

    def test_sparse(self, benchmark: Any, rows: int, dof: int) -> None:
        if dof > 46_080:
            pytest.skip("dof √rows nonzeros: minutes at this size")
        sparse = Sparse(rows, dof)
        self.run(benchmark, "sparse unpack + adjoint", steps(sparse, self.free, self.weights), 1)
