"""Unpack and adjoint of the generators, and the usual alternatives, at the sizes of two ResNets.

The reference is `out.copy_(weights)`: reading and writing Ŵ once. It is timed before every single
round, so that a machine whose speed drifts, or a warm cache, is the same for both. The authors' way
is an int64 index table and a float mask, `free[index] * mask`, which keeps 12 bytes a weight;
UniLora's (PEFT) is `free[index] * scale[index]`.

Two generators are not here: dense, with 10^12 entries at the smallest of these sizes (see
bench_dense.py), and nullspace, whose dof is what its equalities leave.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.step import unpack_step
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
    (RESNET_18, 46_080),
    (RESNET_18, 2_359_296),
    (RESNET_18, 5_580_288),
    (RESNET_34, 42_516),  # no multiple of a tile
    (RESNET_34, 46_080),
    (RESNET_34, 2_359_296),
    (RESNET_34, 5_580_288),
    (RESNET_34, 11_160_576),
]


def stored_matrix(rows: int, dof: int) -> Matrix:
    """A stored sparse matrix with one random entry a row."""
    indptr, indices = torch.arange(rows + 1), torch.randint(dof, (rows,))
    return Matrix(rows, dof, indptr=indptr, indices=indices, values=torch.ones(rows))


def lego(rows: int, dof: int) -> Lego:
    """Filters that are each a random one of the legos, of at most 64 x 9 entries."""
    fan = max(size for size in range(1, 577) if rows % size == dof % size == 0)
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
    "matrix": stored_matrix,
    "part": lambda rows, dof: Part.of(Ring(rows, 2 * dof), torch.arange(2 * dof) % 2 == 0),
    "mask": lambda rows, dof: Mask.of(Ring(rows, dof), torch.arange(rows) % 2 == 0),
    "identity": lambda rows, dof: Identity(rows, rows),
}


def alternatives(rows: int, dof: int) -> dict[str, tuple[Callable[[Tensor], Tensor], int]]:
    """Name -> (how it makes Ŵ of a free vector, resident bytes)."""
    index, mask = torch.randint(dof, (rows,)), torch.randint(0, 2, (rows,)).float() * 2 - 1
    scale = torch.bincount(index, minlength=dof).clamp(min=1).float().rsqrt()
    return {
        "authors: table and mask": (lambda free: free[index] * mask, 12 * rows),
        "UniLora: table and scale": (lambda free: free[index] * scale[index], 8 * rows + 4 * dof),
    }


def resident(generator: Generator) -> int:
    """Bytes of the tensors that a generator keeps."""
    counted: set[int] = set()

    def size(value: Any) -> int:
        if isinstance(value, Tensor) and value.data_ptr() not in counted:
            counted.add(value.data_ptr())
            return value.numel() * value.element_size()
        if hasattr(value, "__dataclass_fields__"):
            return sum(size(field) for field in vars(value).values())
        if isinstance(value, dict):
            return sum(size(item) for item in value.values())
        return sum(size(item) for item in value) if isinstance(value, tuple | list) else 0

    return sum(size(value) for name, value in vars(generator).items() if name != "_recycler")


@pytest.mark.parametrize(("rows", "dof"), SIZES)
class TestUnpack:
    @pytest.fixture(autouse=True)
    def _tensors(self, benchmark: Any, rows: int, dof: int) -> Iterator[None]:
        benchmark.group = f"unpack, rows {rows:,}, dof {dof:,}, float32"
        self.free, self.weights, self.out = torch.randn(dof), torch.randn(rows), torch.empty(rows)
        self.other = torch.empty(rows)
        yield
        self.__dict__.clear()  # the runner keeps this object, and its tensors, until all are done

    def run(
        self, benchmark: Any, name: str, function: Callable[[], Any], rounds: int, **note: Any
    ) -> None:
        copies: list[float] = []

        def copy() -> None:
            start = time.perf_counter()
            self.other.copy_(self.weights)
            copies.append(time.perf_counter() - start)

        def once() -> None:
            function()  # and drop the result, as a training step does

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
        run = partial(ring.unpack, self.free, out=self.out)
        self.run(benchmark, "ring into a buffer", run, 31, **note)

    def test_ring_fresh(self, benchmark: Any, rows: int, dof: int) -> None:
        ring = Ring(rows, dof)
        self.run(benchmark, "ring", lambda: ring.unpack(self.free), 15)

    def test_ring_adjoint(self, benchmark: Any, rows: int, dof: int) -> None:
        ring = Ring(rows, dof)
        self.run(benchmark, "ring adjoint", lambda: ring.adjoint(self.weights), 15)

    def test_ring_step(self, benchmark: Any, rows: int, dof: int) -> None:
        run = unpack_step(Ring(rows, dof).unpack, self.free, self.weights)
        self.run(benchmark, "ring unpack + adjoint", run, 15)

    @pytest.mark.parametrize("name", ["authors: table and mask", "UniLora: table and scale"])
    def test_alternative(self, benchmark: Any, rows: int, dof: int, name: str) -> None:
        unpack, kept = alternatives(rows, dof)[name]
        self.run(benchmark, name, lambda: unpack(self.free), 5, **{"resident bytes": kept})

    @pytest.mark.parametrize("name", ["authors: table and mask", "UniLora: table and scale"])
    def test_alternative_step(self, benchmark: Any, rows: int, dof: int, name: str) -> None:
        unpack, _ = alternatives(rows, dof)[name]
        run = unpack_step(unpack, self.free, self.weights)
        self.run(benchmark, f"{name}, with its backward", run, 3)

    @pytest.mark.parametrize("name", OTHERS)
    def test_others(self, benchmark: Any, rows: int, dof: int, name: str) -> None:
        if name == "identity" and (rows, dof) not in (SIZES[0], SIZES[-1]):
            pytest.skip("it has no dof to choose")
        generator = OTHERS[name](rows, dof)
        free = torch.randn(generator.dof)
        generator.unpack(free)
        note = {"resident bytes": resident(generator)}
        run = unpack_step(generator.unpack, free, self.weights)
        self.run(benchmark, f"{name} unpack + adjoint", run, 3, **note)

    def test_sparse(self, benchmark: Any, rows: int, dof: int) -> None:
        if dof > 46_080:
            pytest.skip("dof √rows nonzeros: minutes at this size")
        run = unpack_step(Sparse(rows, dof).unpack, self.free, self.weights)
        self.run(benchmark, "sparse unpack + adjoint", run, 1)
