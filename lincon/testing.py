"""The laws that every generator obeys, for those who write one: `check_generator`."""

import json
import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from inspect import Parameter, signature
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lincon.counter import bits, key, shift_right
from lincon.errors import one_line
from lincon.generator import Generator
from lincon.maps.registry import build, options_of, registered
from lincon.maps.scaled import Scaled
from lincon.shapes import Float, Float64

TOLERANCE = 1e-9
"""Relative, in float64, where sums may be reordered."""


def check_generator(generator: Generator) -> None:
    """Check every law of a (small) generator against its dense G in float64.

    Raises AssertionError, which names the law that is broken, or the method that failed.

    Laws: rows, dof, seed and options make an equal generator; entries within G; linear, adjoint,
    sliceable, deterministic, gradients of both directions, projection is least squares and a left
    inverse where G has full column rank, gram is diag(GᵀG), spec (and pickle) round trip, no global
    random state touched, copies are the object itself, float32 agrees with float64.

    >>> from lincon.generators import Hash
    >>> check_generator(Hash(rows=20, dof=4))
    """
    # A constraint makes those of its map anew, so that no file holds one.
    left_out = _OF_STORED if isinstance(generator, Scaled) else ()
    with _random_state_untouched():
        for what, check in _CHECKS.items():
            if check in left_out:
                continue
            try:
                check(generator)
            except BrokenLaw:
                raise
            except Exception as error:  # of the generator, whose code can fail in any way
                kind = type(error).__name__
                raise BrokenLaw(f"{what} fails with {kind}: {one_line(error)}") from error


class BrokenLaw(AssertionError):
    """A law is broken, and the message names it."""


def _require(holds: bool, law: str) -> None:
    if not holds:
        raise BrokenLaw(law)


@contextmanager
def _random_state_untouched() -> Iterator[None]:
    """Raise AssertionError if a global random state has moved: whatever else fails, fails of that.

    The states are put back.
    """
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    moved = {
        "torch's": not torch.equal(torch.get_rng_state(), torch_state),
        "NumPy's": repr(np.random.get_state(legacy=False)) != repr(numpy_state),
        "Python's": random.getstate() != python_state,
    }
    torch.set_rng_state(torch_state)
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    for whose, has_moved in moved.items():
        if has_moved:
            raise BrokenLaw(
                f"it uses {whose} random state, so G is another one each time: draw from "
                "lincon.counter.bits(key(seed, STREAM), counter)"
            ) from failure
    if failure is not None:
        raise failure


def _check_class(g: Generator) -> None:
    cls = type(g)
    _require(bool(g.name), f"{cls.__name__} says no name, such as name = 'mine'")
    missing = [name for name in ("rows", "dof", "seed", "handle") if not hasattr(g, name)]
    _require(not missing, "__init__ does not call super().__init__(rows, dof, seed)")
    held = [name for name, value in vars(g).items() if isinstance(value, torch.nn.Parameter)]
    _require(not held, f"a generator owns no Parameter: {', '.join(held)}")


def _check_options(g: Generator) -> None:
    options, known = g.options(), options_of(type(g))
    stored = options.keys() | g.tables().keys()
    absent = {name: p for name, p in known.items() if name not in stored}
    # One of several ways to make it, such as a mask that was not given, is None.
    lost = [n for n, p in absent.items() if p.default is not None or _is_set(g, n)]
    quoted = ", ".join(map(repr, lost))
    _require(not lost, f"option {quoted} is missing in options() (or, a tensor, in tables())")
    for name, value in options.items():
        _require(name in known, f"options() has {name!r}, which __init__ does not take")
        _require(_is_json(value), f"option {name!r} is no plain JSON in options(): {value!r}")
    for name, table in g.tables().items():
        is_plain = isinstance(table, Tensor) and table.device.type == "cpu"
        _require(is_plain, f"tables() must hold tensors on the CPU; {name!r} is none")


def _is_set(g: Generator, name: str) -> bool:
    return getattr(g, name, None) is not None


def _is_json(value: Any) -> bool:
    """Whether a value is the same after it was written to JSON and read."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def _check_constructor(g: Generator) -> None:
    parameters = signature(type(g)).parameters
    if any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in "rows", "dof", "seed":
        _require(name in parameters, f"__init__ does not take {name}")


def _check_registered(g: Generator) -> None:
    found = registered(g.name)
    other = "no registered generator" if found is None else f"{found}"
    _require(
        found is type(g),
        f"{g.name!r} is {other}: decorate {type(g).__name__} with @lincon.generators.register, "
        "or no file can hold it",
    )


def _check_spec(g: Generator) -> None:
    _check_same("spec", g, build(json.loads(json.dumps(g.spec())), g.tables()))


def _check_entries(g: Generator) -> None:
    """Of a generator that says where the one nonzero of each row is."""
    entries = getattr(g, "entries", None)
    if not callable(entries):
        return
    rows = torch.arange(g.rows)
    index, sign = entries(rows.clone())
    _require(index.shape == rows.shape, f"entries: index is {tuple(index.shape)}, one a row is due")
    _require(index.dtype == torch.int64, f"entries: index is {index.dtype}, not int64")
    low, high = int(index.min()), int(index.max())
    _require(
        low >= 0 and high < g.dof,
        f"entries outside of [0, dof) = [0, {g.dof}): index goes from {low} to {high}",
    )
    if sign is not None:
        _require(
            sign.shape == rows.shape, f"entries: sign is {tuple(sign.shape)}, one a row is due"
        )
    # In the step rows come in any range, and G is read by a table if it is small.
    some = rows.flip(0)[::3]
    own_index, own_sign = entries(some.clone())
    same = torch.equal(own_index, index[some])
    if sign is not None and own_sign is not None:
        same = same and torch.equal(own_sign, sign[some])
    _require(same, "entries of some rows are others than when all rows are asked for")


def _check_written(g: Generator) -> None:
    """`write` overwrites all of its output, and reads nothing of it."""
    free = values(g.dof, 1)
    prepared = g.prepare(free)
    _require(
        prepared.shape == (g.prepared_dof,),
        f"prepare returns {tuple(prepared.shape)}, prepared_dof is {g.prepared_dof}",
    )
    out = torch.full((g.rows,), torch.nan, dtype=torch.float64)
    g.write(out, prepared, 0)
    unwritten = int(out.isnan().sum())
    _require(not unwritten, f"_write leaves {unwritten} of {g.rows} rows of out unwritten")


def _check_linear(g: Generator) -> None:
    dense = g.dense()
    free, other, grad = values(g.dof, 1), values(g.dof, 2), values(g.rows, 3)
    combined = 2 * g.unpack(free) - 3 * g.unpack(other)
    _same(g.unpack(2 * free - 3 * other), combined, "unpack is not linear")
    _same(g.unpack(free), dense @ free, "unpack is not G @ free")
    _same(g.adjoint(grad), dense.T @ grad, "adjoint is not G.T @ grad")
    _same(g.unpack(free) @ grad, free @ g.adjoint(grad), "<G w, g> is not <w, Gᵀ g>")


def _check_gram(g: Generator) -> None:
    dense = g.dense()
    squares, weights = dense * dense, values(g.rows, 5).square()
    _same(g.gram_diagonal(), squares.sum(0), "gram_diagonal is not diag(GᵀG)")
    _same(g.gram_diagonal(weights), weights @ squares, "weighted gram_diagonal is wrong")
    _same(torch.from_numpy(g.sparse().toarray()), dense, "sparse() is not G")
    if g.disjoint:
        reads = int((dense != 0).sum(1).max())
        _require(reads <= 1, f"disjoint is True, but a row reads {reads} entries")
    if g.diagonal_gram:
        gram = dense.T @ dense
        _same(gram, torch.diag(gram.diagonal()), "diagonal_gram is True, but GᵀG is not diagonal")


def _check_narrow(g: Generator) -> None:
    """Gradients of lower precision are summed in float32."""
    free, narrow = values(g.dof, 1), values(g.rows, 3).bfloat16()
    try:
        adjoint = g.adjoint(narrow)
    except RuntimeError as error:
        raise BrokenLaw(
            f"_accumulate does not take a grad of bfloat16: {one_line(error)}"
        ) from error
    _require(adjoint.dtype == torch.bfloat16, "adjoint does not keep bfloat16")
    exact = g.adjoint(narrow.double())
    _same(adjoint.double(), exact, "bfloat16 gradients are not summed in float32", 2e-2)
    weights = g.unpack(free.float())
    _require(weights.dtype == torch.float32, "unpack does not keep float32")
    wide = g.unpack(free.float().double())
    _same(weights.double(), wide, "float32 is not float64 rounded", 1e-5)


def _check_slices(g: Generator) -> None:
    free, grad = values(g.dof, 1), values(g.rows, 3)
    whole = g.unpack(free)
    cuts = sorted({0, 1, g.rows // 3, g.rows - 1, g.rows})
    unpacked, total = [], torch.zeros(g.dof, dtype=torch.float64)
    for start, stop in pairwise(cuts):
        unpacked.append(g.unpack(free, start, stop))
        total += g.adjoint(grad[start:stop], start, stop)
    _same(torch.cat(unpacked), whole, "unpack of slices is not a slice of unpack")
    _same(total, g.adjoint(grad), "adjoints of slices do not add up")
    initial, half = values(g.prepared_dof, 6), g.rows // 2
    sums = initial.clone()
    g.accumulate(sums, grad[:half], 0)
    g.accumulate(sums, grad[half:], half)
    _same(g.prepare_adjoint(sums - initial), total, "_accumulate does not add to what is there")
    out = torch.empty(g.rows, dtype=torch.float64)
    is_out = g.unpack(free, out=out) is out
    _require(is_out and torch.equal(out, whole), "unpack(out=) differs")
    _require(torch.equal(g.unpack(free), whole), "unpack is not the same twice")
    _require(torch.equal(g.adjoint(grad), g.adjoint(grad)), "adjoint is not the same twice")


def _check_autograd(g: Generator) -> None:
    dense, free, grad = g.dense(), values(g.dof, 1), values(g.rows, 3)
    leaf = free.clone().requires_grad_()
    (first,) = torch.autograd.grad(g.unpack(leaf).square() @ grad, leaf, create_graph=True)
    expected_first = dense.T @ (2 * (dense @ free) * grad)
    _same(first.detach(), expected_first, "the gradient of unpack is not its adjoint")
    (second,) = torch.autograd.grad(first.sum(), leaf)
    expected_second = dense.T @ (2 * grad * (dense @ torch.ones_like(free)))
    _same(second, expected_second, "the second derivative of unpack is wrong")


def _check_projection(g: Generator) -> None:
    dense, target = g.dense(), values(g.rows, 3)
    # `project` is that of Ŵ = W₀ + G W.
    w0 = g.offset()
    w0 = torch.zeros_like(target) if w0 is None else w0
    shifted = target - w0
    solution = torch.linalg.lstsq(dense, shifted[:, None], driver="gelsd").solution[:, 0]
    least = (dense @ solution - shifted).norm()
    residual = (dense @ g.project(target) - shifted).norm()
    is_least = bool(residual <= least * (1 + 1e-6) + 1e-6 * target.norm())
    _require(is_least, "project is not the least-squares fit")
    if int(torch.linalg.matrix_rank(dense)) == g.dof:
        free = values(g.dof, 4)
        _same(g.project(dense @ free + w0), free, "project is not a left inverse", 1e-5)


def _check_value(g: Generator) -> None:
    _check_same("pickle", g, pickle.loads(pickle.dumps(g)))
    _require(deepcopy(g) is g, "a copy of a generator must be itself: it is a value")


def _check_same(source: str, g: Generator, copy: Generator) -> None:
    free, rebuilt = values(g.dof, 1), f"a generator rebuilt from its {source}"
    _require(copy == g and hash(copy) == hash(g), f"{rebuilt} is not equal")
    is_same = torch.equal(copy.unpack(free), g.unpack(free))
    _require(is_same, f"{rebuilt} is another map: G depends on more than its seed and options()")
    _require(copy.fingerprint() == g.fingerprint(), f"{rebuilt} has another fingerprint")


_CHECKS = {
    "its class": _check_class,
    "__init__": _check_constructor,
    "options()": _check_options,
    "entries": _check_entries,
    "_write": _check_written,
    "G itself": _check_linear,
    "a range of rows": _check_slices,
    "a gradient": _check_autograd,
    "project": _check_projection,
    "gram_diagonal": _check_gram,
    "lower precision": _check_narrow,
    "its name": _check_registered,
    "a copy": _check_value,
    "its spec": _check_spec,
}
"""Each check by what it is about. The first that fails is nearest to the cause."""

_OF_STORED = _check_constructor, _check_registered, _check_spec
"""What only a generator must obey that files hold."""


def values(n: int, stream: int) -> Float64[Tensor, " {n}"]:
    """Numbers in [-1, 1), from the counter: no global random state is used.

    >>> values(2, stream=0)
    tensor([ 0.6519, -0.9394], dtype=torch.float64)
    """
    return shift_right(bits(key(0, 900, stream), torch.arange(n)), 32).double() / 2**31 - 1


def _same(
    left: Float[Tensor, "*shape"],
    right: Float[Tensor, "*other"],
    law: str,
    tolerance: float = TOLERANCE,
) -> None:
    gap = float((left - right).abs().max()) if left.shape == right.shape else float("inf")
    allowed = tolerance * max(1.0, float(right.abs().max()))
    _require(gap <= allowed, f"{law}: differs by {gap:.3g}, allowed {allowed:.3g}")
