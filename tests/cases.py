"""One example or more of every registered generator; a test fails if a name has none."""

from collections.abc import Callable
from math import isqrt, prod

import torch
from einops import rearrange
from hypothesis import strategies as st

import lincon
from lincon.counter import bits, key
from lincon.generators import Codebook, Lego, Mask, Matrix, Nullspace, Part, available, get
from lincon.generators.nullspace import tied
from lincon.maps.registry import options_of
from lincon.testing import values

OPTIONS: dict[str, list[dict[str, object]]] = {
    "identity": [{}],
    "dense": [{}, {"entries": "normal"}],
    "sparse": [{}],
    "hash": [{}],
    "random": [{}],
    "ring": [
        {},
        {"tile": 1},
        {"tile": 5},
        {"tile": 8},
        {"order": "deck"},
        {"permute": False},
        {"sign": False},
        {"tile": 3, "sign": False, "permute": False},
    ],
    "fold": [{}, {"chunk": 4}],
    "fastfood": [{}],
    "kronecker": [{}, {"orthonormal": True}],
    "codebook": [{}],
    "lego": [{}],
    "matrix": [{}],
    "nullspace": [{}],
    "mask": [{}, {"of": "dense"}, {"of": "nullspace"}],
    "part": [{}, {"of": "dense"}, {"of": "codebook", "fewer_rows": True}, {"fewer_rows": True}],
}

GIVEN = {"lego", "mask", "matrix", "nullspace", "part"}
"""Generators that are given to `constrain` ready-made: weights and options do not make them."""


def make(name: str, rows: int, dof: int, seed: int, options: dict[str, object]) -> lincon.Generator:
    """An example with about the given size, or the nearest that the scheme can have."""
    if name in MAKERS:
        return MAKERS[name](rows, dof, seed, options)
    cls = get(name)
    if name == "identity":
        dof = rows
    if "shapes" in options_of(cls):
        options = {**options, "shapes": shapes_of(rows)}
    if not cls.allows_unused:
        dof = min(dof, rows)
    for option in ("tile", "chunk"):
        if isinstance(size := options.get(option), int):
            options = {**options, option: min(size, dof)}
    return cls(rows, dof, seed, **options)


def shapes_of(rows: int) -> list[list[int]]:
    """The shapes of a few tensors that have so many weights together: a matrix, and a convolution."""
    side = isqrt(rows // 2)
    left = rows - side * side
    shapes = [[side, side], [left // 8, 2, 2, 2], [1, left % 8]]
    return [shape for shape in shapes if prod(shape)]


def _matrix(rows: int, dof: int, seed: int, options: dict[str, object]) -> Matrix:
    entries = values(rows * dof, seed % 97)
    return Matrix(
        rows, dof, seed, matrix=rearrange(entries, "(row column) -> row column", row=rows)
    )


def _codebook(rows: int, dof: int, seed: int, options: dict[str, object]) -> Codebook:
    return Codebook.fit(values(rows, seed % 97), dof)


def _lego(rows: int, dof: int, seed: int, options: dict[str, object]) -> Lego:
    fan, splits, legos = 1 + seed % 3, 1 + seed % 2, max(1, dof // 3)
    outputs = -(-rows // (fan * splits))
    random = bits(key(7, seed % 97), torch.arange(splits * outputs))
    select = rearrange((random % legos).abs(), "(split out) -> split out", split=splits)
    coefficient = values(select.numel(), 3).view_as(select)
    return Lego(select.numel() * fan, legos * fan, select=select, coefficient=coefficient)


def _nullspace(rows: int, dof: int, seed: int, options: dict[str, object]) -> Nullspace:
    size = 1 + seed % 3
    groups = -(-rows // size)
    equalities = tied(groups, size)
    b = values(equalities.shape[0], 7).numpy()
    return Nullspace(groups * size, None, equalities=equalities, values=b)


def _mask(rows: int, dof: int, seed: int, options: dict[str, object]) -> lincon.Generator:
    inner = make(str(options.get("of", "ring")), rows, dof, seed, {})
    return Mask.of(inner, _kept(inner.rows, seed % 7 % inner.rows))


def _part(rows: int, dof: int, seed: int, options: dict[str, object]) -> Part:
    dropped_rows = 1 + seed % 5 if options.get("fewer_rows") else 0
    dropped_columns = 1 + seed % 3
    inner_name = str(options.get("of", "ring"))
    inner = make(inner_name, rows + dropped_rows, dof + dropped_columns, seed, {})
    kept_rows = _kept(inner.rows, dropped_rows) if dropped_rows else None
    return Part.of(inner, _kept(inner.dof, min(dropped_columns, inner.dof - 1)), kept_rows)


MAKERS: dict[str, Callable[[int, int, int, dict[str, object]], lincon.Generator]] = {
    "matrix": _matrix,
    "codebook": _codebook,
    "lego": _lego,
    "nullspace": _nullspace,
    "mask": _mask,
    "part": _part,
}
"""The makers of examples of generators that are made of more than rows, dof and seed."""


def _kept(length: int, dropped: int) -> torch.Tensor:
    """A mask, (length,), without ``dropped`` places that are spread over it."""
    mask = torch.ones(length, dtype=torch.bool)
    mask[torch.arange(dropped) * length // max(1, dropped)] = False
    return mask


SIZES = st.one_of(st.integers(1, 40), st.sampled_from([64, 97, 127, 128, 200]))
SEEDS = st.one_of(st.integers(0, 3), st.integers(-(2**70), 2**70))


@st.composite
def generators(draw: Callable[..., object], name: str) -> lincon.Generator:
    options = draw(st.sampled_from(OPTIONS[name]))
    return make(name, draw(SIZES), draw(SIZES), draw(SEEDS), options)  # type: ignore[arg-type]


def examples() -> list[lincon.Generator]:
    """Fixed, small, one for each registered name and option set."""
    return [make(name, 131, 23, 5, options) for name in available() for options in OPTIONS[name]]


def integers(n: int, stream: int) -> torch.Tensor:
    """(n,) float64 with small integer values: sums of them are exact."""
    return (bits(key(1, stream), torch.arange(n)) & 15).double() - 7


def tables_of(generator: lincon.Generator) -> list[object]:
    """The tables that a generator keeps between calls."""
    return list(vars(generator).get("_per_device", {}).values())
