"""Generators that other people write: what they may ask for, and what is wrong with broken ones."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import lincon
from lincon.counter import bits, key, normals
from lincon.generators import OneNonzero
from lincon.maps import registry
from lincon.testing import check_generator

pytestmark = pytest.mark.usefixtures("own_registry")


# Three good ones.


def starts(sizes):
    """The place of each tensor's first number."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(int)


def matrices(shapes):
    """Tensors as matrices (outputs, inputs): a convolution as one of its patches."""
    return [(shape[0], int(np.prod(shape[1:]))) for shape in shapes]


class OfMatrices(OneNonzero):
    """A base of generators whose free numbers lie tensor after tensor."""

    def __init__(self, rows, dof, seed=0, *, shapes):
        super().__init__(rows, dof, seed)
        self.shapes = shapes
        self.matrices = matrices(shapes)
        if sum(out * fan for out, fan in self.matrices) != rows or dof != self._width(shapes):
            raise lincon.LinconError(f"{self.name}: {shapes} need {self._width(shapes)} dof.")

    @classmethod
    def _width(cls, shapes):
        return sum(cls.numbers(out, fan) for out, fan in matrices(shapes))

    @classmethod
    def default_dof(cls, rows, options):
        return cls._width(options["shapes"])

    def options(self):
        return {"shapes": self.shapes}

    def entries(self, rows):
        first_rows = starts([out * fan for out, fan in self.matrices])
        first_numbers = starts([self.numbers(out, fan) for out, fan in self.matrices])
        index = torch.empty_like(rows)
        for number, (out, fan) in enumerate(self.matrices):
            here = (rows >= first_rows[number]) & (rows < first_rows[number + 1])
            place = rows[here] - first_rows[number]
            index[here] = first_numbers[number] + self.number(place // fan, place % fan, out, fan)
        return index, None


class Toeplitz(OfMatrices):
    """Ŵ[i, j] = w[i - j]: every diagonal is one number."""

    name = "toeplitz_of_a_test"

    @staticmethod
    def numbers(out, fan):
        return out + fan - 1

    @staticmethod
    def number(i, j, out, fan):
        return i - j + fan - 1


class BlockCirculant(OfMatrices):
    """Blocks of 4 x 4 in which Ŵ[i, j] = w[(i - j) mod 4]."""

    name = "circulant-of-a-test"

    @staticmethod
    def numbers(out, fan):
        return -(-out // 4) * -(-fan // 4) * 4

    @staticmethod
    def number(i, j, out, fan):
        return (i // 4 * -(-fan // 4) + j // 4) * 4 + (i - j) % 4


class LowRank(lincon.Generator):
    """Ŵ = U V with a fixed, random U of ``rank`` columns and free V, tensor after tensor."""

    name = "low_rank_of_a_test"

    def __init__(self, rows, dof, seed=0, *, rank=2, shapes):
        super().__init__(rows, dof, seed)
        self.rank, self.shapes = rank, shapes
        entries = [normals(bits(key(seed, 991, t), torch.arange(out * rank))).double()
                   for t, (out, _) in enumerate(matrices(shapes))]  # fmt: skip
        self._bases = [each.view(-1, rank) for each in entries]

    @classmethod
    def default_dof(cls, rows, options):
        return sum(options.get("rank", 2) * fan for _, fan in matrices(options["shapes"]))

    def options(self):
        return {"rank": self.rank, "shapes": self.shapes}

    def _cut(self, free):
        return free.split([self.rank * fan for _, fan in matrices(self.shapes)])

    def _write(self, out, prepared, start):
        parts = zip(self._bases, self._cut(prepared.double()), strict=True)
        rows = torch.cat([(u @ v.view(self.rank, -1)).reshape(-1) for u, v in parts])
        out.copy_(rows[start : start + len(out)])

    def _accumulate(self, out, grad, start):
        rows = torch.zeros(self.rows, dtype=out.dtype)
        rows[start : start + len(grad)] = grad.to(out.dtype)
        grads = rows.split([u * fan for u, fan in matrices(self.shapes)])
        parts = zip(self._bases, grads, strict=True)
        out += torch.cat([(u.to(out.dtype).T @ g.view(len(u), -1)).reshape(-1) for u, g in parts])


GOOD = Toeplitz, BlockCirculant, LowRank
SHAPES = [[6, 5], [8, 4], [3, 2, 2, 2], [1, 7]]
ROWS = 30 + 32 + 24 + 7


def convnet(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 6), nn.Linear(6, 3))


@pytest.mark.parametrize("cls", GOOD)
def test_generators_that_ask_for_shapes_obey_the_laws(cls):
    lincon.generators.register(cls)
    dof = cls.default_dof(ROWS, {"shapes": SHAPES})
    check_generator(cls(ROWS, dof, 3, shapes=SHAPES))


@pytest.mark.parametrize("cls", GOOD)
@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_constrain_gives_the_shapes_and_a_file_rebuilds_them(cls, scope, materialize, tmp_path):
    lincon.generators.register(cls)
    model, fresh, x = convnet(), convnet(1), torch.randn(3, 2, 4, 4)
    constraint = lincon.constrain(model, cls.name, scope=scope, materialize=materialize)
    assert {entry.shape for entry in constraint.ledger} == {(4, 2, 3, 3), (6, 16), (3, 6)}
    model(x).square().sum().backward()
    assert all(bool(free.grad.any()) for free in constraint.free.values())
    lincon.save(model, tmp_path / "m")
    lincon.load(fresh, tmp_path / "m")
    assert torch.equal(fresh(x), model(x))


def test_each_scheme_makes_the_matrices_that_it_promises():
    for cls in GOOD:
        lincon.generators.register(cls)
    lincon.constrain(toeplitz := nn.Linear(5, 6), "toeplitz_of_a_test")
    assert torch.equal(toeplitz.weight[1:, 1:], toeplitz.weight[:-1, :-1])
    lincon.constrain(circulant := nn.Linear(8, 8), "circulant-of-a-test")
    for block in circulant.weight.detach().unfold(0, 4, 4).unfold(1, 4, 4).reshape(-1, 4, 4):
        assert torch.equal(block.roll((1, 1), (0, 1)), block)
    lincon.constrain(low := nn.Linear(20, 30), "low_rank_of_a_test", rank=3)
    assert int(torch.linalg.matrix_rank(low.weight)) == 3


def test_a_callable_may_ask_for_shapes_too():
    from functools import partial

    seen = []

    def make(rows, dof, seed, shapes):
        seen.append(shapes)
        return lincon.generators.Ring(rows, dof, seed)

    lincon.constrain(convnet(), make, dof=20)
    assert seen == [[[4, 2, 3, 3], [6, 16], [3, 6]]]
    lincon.generators.register(LowRank)
    constraint = lincon.constrain(nn.Linear(5, 6), partial(LowRank, rank=1), dof=5)
    assert constraint.groups[0].generator.options() == {"rank": 1, "shapes": [[6, 5]]}


def test_a_bound_or_given_option_is_the_users():
    from functools import partial

    lincon.generators.register(Toeplitz)
    for given in (
        {"generator": partial(Toeplitz, shapes=[[15, 2]])},
        {"generator": "toeplitz_of_a_test", "shapes": [[15, 2]]},
    ):
        constraint = lincon.constrain(nn.Linear(5, 6), **given, dof=16)
        assert constraint.groups[0].generator.shapes == [[15, 2]]


# Three broken ones, and their neighbours.


class WithWidth(OneNonzero):
    """It forgets its option."""

    name = "with_width"

    def __init__(self, rows, dof, seed=0, *, width=2):
        super().__init__(rows, dof, seed)
        self._w = width

    def entries(self, rows):
        return rows // self._w % self.dof, None


class Outside(OneNonzero):
    """Its index reaches dof."""

    name = "outside"

    def entries(self, rows):
        return rows % (self.dof + 1), None


class Drawn(lincon.Generator):
    """It draws G from torch's random state."""

    name = "drawn"

    def __init__(self, rows, dof, seed=0):
        super().__init__(rows, dof, seed)
        self.matrix = self.draw(rows, dof)

    def draw(self, rows, dof):
        return torch.randn(rows, dof, dtype=torch.float64)

    def _write(self, out, prepared, start):
        out.copy_(self.matrix[start : start + len(out)] @ prepared.double())

    def _accumulate(self, out, grad, start):
        out += self.matrix[start : start + len(grad)].to(out.dtype).T @ grad.to(out.dtype)


class DrawnByNumpy(Drawn):
    name = "drawn_by_numpy"

    def draw(self, rows, dof):
        return torch.from_numpy(np.random.randn(rows, dof))


class DrawnByPython(Drawn):
    name = "drawn_by_python"

    def draw(self, rows, dof):
        return torch.tensor([[random.random() for _ in range(dof)] for _ in range(rows)]).double()


class DrawnAtEachCall(Drawn):
    name = "drawn_at_each_call"

    def _write(self, out, prepared, start):
        out.copy_(torch.randn(len(out), self.dof).double() @ prepared.double())


class DrawnSeedless(Drawn):
    name = "drawn_seedless"

    def draw(self, rows, dof):
        return torch.from_numpy(np.random.default_rng().standard_normal((rows, dof)))


class Exact(Drawn):
    """A good one, from which others below are broken."""

    name = "exact"

    def draw(self, rows, dof):
        entries = normals(bits(key(self.seed, 992), torch.arange(rows * dof)))
        return entries.double().view(rows, dof)


def broken(base=Exact, **members):
    members.setdefault("name", "broken")
    return type("Broken", (base,), members)


def _init_with(self, rows, dof, seed=0, *, width=3):
    Exact.__init__(self, rows, dof, seed)
    self.width = width


def _returning(self, out, prepared, start):
    return self.matrix[start : start + len(out)] @ prepared


def _init_without_super(self, rows, dof, seed=0):
    self.rows, self.dof, self.seed = rows, dof, seed


def _init_otherwise(self, height, width, seed=0):
    Exact.__init__(self, height, width, seed)


def _by_position(self, rows):
    return torch.arange(len(rows)) % self.dof, None


BROKEN = {
    "the option is missing": (WithWidth, "option 'width' is missing in options()"),
    "the index is outside": (Outside, r"entries outside of \[0, dof\) = \[0, 7\): .* from 0 to 7"),
    "torch's random state": (Drawn, "uses torch's random state"),
    "NumPy's random state": (DrawnByNumpy, "uses NumPy's random state"),
    "Python's random state": (DrawnByPython, "uses Python's random state"),
    "a random state at each call": (DrawnAtEachCall, "uses torch's random state"),
    "no seed": (DrawnSeedless, "rebuilt from its pickle is another map"),
    "no name": (broken(name=""), "Broken says no name"),
    "no super": (broken(__init__=_init_without_super), r"does not call super\(\).__init__"),
    "other arguments": (broken(__init__=_init_otherwise), "__init__ does not take rows"),
    "an unknown option": (
        broken(options=lambda self: {"width": 3}),
        r"options\(\) has 'width', which __init__ does not take",
    ),
    "no JSON": (
        broken(__init__=_init_with, options=lambda self: {"width": (3, 3)}),
        "option 'width' is no plain JSON",
    ),
    "a tensor in JSON": (
        broken(__init__=_init_with, options=lambda self: {"width": torch.ones(2)}),
        "option 'width' is no plain JSON",
    ),
    "what it writes is returned": (broken(_write=_returning), "_write leaves 40 of 40 rows"),
    "an offset": (
        broken(_write=lambda self, out, prepared, start: out.fill_(1)),
        "unpack is not linear",
    ),
    "no adjoint": (
        broken(_accumulate=lambda self, out, grad, start: out.add_(1)),
        "adjoint is not G.T @ grad",
    ),
    "an error of its own": (
        broken(_write=lambda self, out, prepared, start: self.table[start]),
        "_write fails with AttributeError: .* no attribute 'table'",
    ),
    "an assertion of its own": (
        broken(_accumulate=lambda self, out, grad, start: exec("assert False")),
        "G itself fails with AssertionError",
    ),
    "a false claim": (broken(disjoint=True), "disjoint is True, but a row reads 7 entries"),
    "another false claim": (
        broken(diagonal_gram=True, project=lambda self, t: Exact(40, 7).project(t)),
        "diagonal_gram is True, but GᵀG is not diagonal",
    ),
    "entries by position": (
        broken(OneNonzero, entries=_by_position),
        "entries of some rows are others than when all rows are asked for",
    ),
    "a float index": (
        broken(OneNonzero, entries=lambda self, rows: (rows % self.dof * 1.0, None)),
        "entries: index is torch.float32, not int64",
    ),
    "one index for all": (
        broken(OneNonzero, entries=lambda self, rows: (torch.tensor(0), None)),
        "entries: index is .*, one a row is due",
    ),
    "not registered": (broken(), "'broken' is no registered generator: decorate Broken"),
    "registered by another": (broken(name="ring"), "'ring' is .*Ring.*: decorate Broken"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_check_generator_says_what_is_wrong(case):
    cls, message = BROKEN[case]
    if cls.__name__ != "Broken":
        lincon.generators.register(cls)
    generator = cls(40, 7)
    states = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    with pytest.raises(AssertionError, match=message):
        check_generator(generator)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), repr(np.random.get_state())) == states[1:]


def test_the_good_one_that_the_broken_ones_are_made_from_obeys():
    check_generator(lincon.generators.register(Exact)(40, 7))


def test_an_index_outside_is_refused_by_name_whatever_the_size():
    """Below a table's size, in one, and beyond it; kernels do not look where they read."""
    lincon.generators.register(Outside)
    for size in (10, 300, 1_500):
        model = nn.Linear(size, size)
        with pytest.raises(lincon.LinconError, match=r"outside: entries gives indices from 0 to 7"):
            lincon.constrain(model, "outside", dof=7)
            model(torch.randn(1, size))


# Registering.


def test_the_class_may_be_called_anything():
    lincon.generators.register(BlockCirculant)
    assert lincon.generators.get("circulant-of-a-test") is BlockCirculant
    assert "circulant-of-a-test" in lincon.generators.available()


def test_a_cell_that_runs_again_registers_its_class_again():
    def cell():
        @lincon.generators.register
        class Mine(OneNonzero):
            name = "mine"

            def entries(self, rows):
                return rows % self.dof, None

        return Mine

    cell()
    again = cell()
    assert lincon.generators.get("mine") is again


@pytest.mark.parametrize(
    "thing, message",
    [
        (nn.Linear, "must be a class derived from lincon.Generator"),
        (print, "must be a class derived from lincon.Generator"),
        (OneNonzero, "or from OneNonzero and has entries"),
        (broken(name=""), r"Broken has name='': say in the class"),
        (broken(name="Broken"), r"letters from a to z"),
        (broken(name="two words"), r"letters from a to z"),
        (broken(name="two:words"), r"letters from a to z"),
        (broken(name=3), r"name=3"),
        (broken(name="ring"), r"'ring' is registered already"),
    ],
)
def test_what_cannot_be_registered_says_why(thing, message):
    with pytest.raises(lincon.LinconError, match=message):
        lincon.generators.register(thing)


class Point:
    """An entry point of another distribution, whose name is not that of the class."""

    name, value, dist = "ring", "others:BlockCirculant", None

    def load(self):
        return BlockCirculant


def test_an_entry_point_may_have_another_name_than_the_generator(monkeypatch):
    monkeypatch.setattr(registry, "_loaded", set())
    monkeypatch.setattr(registry, "entry_points", lambda group: [Point()])
    assert lincon.generators.get("circulant-of-a-test") is BlockCirculant
