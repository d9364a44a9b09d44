"""The laws that every generator obeys, for those who write one: `check_generator`."""

import json
import pickle
from copy import deepcopy
from inspect import signature
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lincon.counter import bits, key, shift_right
from lincon.generator import Generator
from lincon.maps.registry import build
from lincon.shapes import Float, Float64

TOLERANCE = 1e-9
"""Relative, in float64, where sums may be reordered."""


def check_generator(generator: Generator) -> None:
    """Check every law of a (small) generator against its dense G in float64.

    Raises AssertionError, which names the law that is broken.

    Laws: linear, adjoint, sliceable, deterministic, gradients of both directions, projection is
    least squares and a left inverse where G has full column rank, gram is diag(GᵀG), spec (and
    pickle) round trip, no global random state touched, copies are the object itself, float32 agrees
    with float64.

    >>> from lincon.generators import Hash
    >>> check_generator(Hash(rows=20, dof=4))
    """
    with torch.random.fork_rng():
        torch.manual_seed(7)
        np.random.seed(7)
        torch_state, numpy_state = torch.get_rng_state(), _numpy_state()
        _check(generator)
        assert torch.equal(torch.get_rng_state(), torch_state), (
            "torch's global random state was moved"
        )
        assert np.array_equal(_numpy_state(), numpy_state), "NumPy's global random state was moved"


def _numpy_state() -> np.ndarray:
    state: np.ndarray = np.random.get_state(legacy=False)["state"]["key"].copy()
    return state


def _check(g: Generator) -> None:
    dense = g.dense()
    free, other = values(g.dof, 1), values(g.dof, 2)
    grad = values(g.rows, 3)
    _same(g.unpack(free), dense @ free, "unpack is not G @ free")
    _same(g.adjoint(grad), dense.T @ grad, "adjoint is not G.T @ grad")
    combined = 2 * g.unpack(free) - 3 * g.unpack(other)
    _same(g.unpack(2 * free - 3 * other), combined, "unpack is not linear")
    _same(g.unpack(free) @ grad, free @ g.adjoint(grad), "<G w, g> is not <w, Gᵀ g>")
    _check_slices(g, free, grad)
    _check_autograd(g, dense, free, grad)
    _check_projection(g, dense, grad)
    squares = dense * dense
    _same(g.gram_diagonal(), squares.sum(0), "gram_diagonal is not diag(GᵀG)")
    weights = values(g.rows, 5).square()
    _same(g.gram_diagonal(weights), weights @ squares, "weighted gram_diagonal is wrong")
    _same(torch.from_numpy(g.sparse().toarray()), dense, "sparse() is not G")
    _check_value(g, free)
    _check_options(g)
    _check_narrow(g, grad)
    narrow = g.unpack(free.float())
    assert narrow.dtype == torch.float32, "unpack does not keep float32"
    _same(narrow.double(), g.unpack(free.float().double()), "float32 is not float64 rounded", 1e-5)


def _check_options(g: Generator) -> None:
    known = set(list(signature(type(g)).parameters)[3:]) - {"tables"}
    missing = sorted(known - g.options().keys() - g.tables().keys())
    optional = {name for name in missing if getattr(g, name, None) is None}
    lost = [name for name in missing if name not in optional]
    assert not lost, f"option {', '.join(map(repr, lost))} is missing in options() or tables()"
    held = [name for name, value in vars(g).items() if isinstance(value, torch.nn.Parameter)]
    assert not held, f"a generator owns no Parameter: {', '.join(held)}"


def _check_narrow(g: Generator, grad: Tensor) -> None:
    """Gradients of lower precision are summed in float32."""
    narrow = grad.bfloat16()
    try:
        adjoint = g.adjoint(narrow)
    except RuntimeError as error:
        raise AssertionError(f"_accumulate does not take a grad of bfloat16: {error}") from error
    assert adjoint.dtype == torch.bfloat16, "adjoint does not keep bfloat16"
    exact = g.adjoint(narrow.double())
    _same(adjoint.double(), exact, "bfloat16 gradients are not summed in float32", 2e-2)


def _check_slices(g: Generator, free: Tensor, grad: Tensor) -> None:
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
    assert g.unpack(free, out=out) is out and torch.equal(out, whole), "unpack(out=) differs"
    assert torch.equal(g.unpack(free), whole), "unpack is not the same twice"
    assert torch.equal(g.adjoint(grad), g.adjoint(grad)), "adjoint is not the same twice"


def _check_autograd(g: Generator, dense: Tensor, free: Tensor, grad: Tensor) -> None:
    leaf = free.clone().requires_grad_()
    (first,) = torch.autograd.grad(g.unpack(leaf).square() @ grad, leaf, create_graph=True)
    expected_first = dense.T @ (2 * (dense @ free) * grad)
    _same(first.detach(), expected_first, "the gradient of unpack is not its adjoint")
    (second,) = torch.autograd.grad(first.sum(), leaf)
    expected_second = dense.T @ (2 * grad * (dense @ torch.ones_like(free)))
    _same(second, expected_second, "the second derivative of unpack is wrong")


def _check_projection(g: Generator, dense: Tensor, target: Tensor) -> None:
    # `project` is that of Ŵ = W₀ + G W.
    w0 = g.offset()
    w0 = torch.zeros_like(target) if w0 is None else w0
    shifted = target - w0
    solution = torch.linalg.lstsq(dense, shifted[:, None], driver="gelsd").solution[:, 0]
    least = (dense @ solution - shifted).norm()
    residual = (dense @ g.project(target) - shifted).norm()
    assert residual <= least * (1 + 1e-6) + 1e-6 * target.norm(), (
        "project is not the least-squares fit"
    )
    if int(torch.linalg.matrix_rank(dense)) == g.dof:
        free = values(g.dof, 4)
        _same(g.project(dense @ free + w0), free, "project is not a left inverse", 1e-5)


def _check_value(g: Generator, free: Tensor) -> None:
    spec = json.loads(json.dumps(g.spec()))
    rebuilt = build(spec, g.tables()) if g.name != "scaled" else g  # scaled is not registered
    for copy, source in ((rebuilt, "spec"), (pickle.loads(pickle.dumps(g)), "pickle")):
        from_source = f"a generator rebuilt from its {source}"
        assert copy == g and hash(copy) == hash(g), f"{from_source} is not equal"
        assert torch.equal(copy.unpack(free), g.unpack(free)), f"{from_source} is another map"
        assert copy.fingerprint() == g.fingerprint(), f"{from_source} has another fingerprint"
    assert deepcopy(g) is g, "a copy of a generator must be itself: it is a value"


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
    assert gap <= allowed, f"{law}: differs by {gap:.3g}, allowed {allowed:.3g}"
