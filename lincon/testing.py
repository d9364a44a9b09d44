"""The laws that every generator obeys, for those who write one: `check_generator`."""

import json
import pickle
from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lincon.counter import bits, key, shift_right
from lincon.generator import Generator
from lincon.maps.registry import build

TOLERANCE = 1e-9
"""Relative, in float64, where sums may be reordered."""


def check_generator(generator: Generator) -> None:
    """Check every law of a (small) generator against its dense G in float64; AssertionError names the one broken.

    Laws: linear, adjoint, sliceable, deterministic, gradients of both directions, projection is least squares and a
    left inverse where G has full column rank, gram is diag(GᵀG), spec (and pickle) round trip, no global random
    state touched, copies are the object itself, float32 agrees with float64.
    """
    with torch.random.fork_rng():
        torch.manual_seed(7)
        np.random.seed(7)
        before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
        _check(generator)
        assert torch.equal(torch.get_rng_state(), before[0]), (
            "torch's global random state was moved"
        )
        assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before[1]), (
            "NumPy's global random state was moved"
        )


def _check(g: Generator) -> None:
    dense = g.dense()
    free, other = values(g.dof, 1), values(g.dof, 2)
    grad = values(g.rows, 3)
    _same(g.unpack(free), dense @ free, "unpack is not G @ free")
    _same(g.adjoint(grad), dense.T @ grad, "adjoint is not G.T @ grad")
    _same(
        g.unpack(2 * free - 3 * other),
        2 * g.unpack(free) - 3 * g.unpack(other),
        "unpack is not linear",
    )
    _same(
        (g.unpack(free) @ grad)[None], (free @ g.adjoint(grad))[None], "<G w, g> is not <w, Gᵀ g>"
    )
    _check_slices(g, free, grad)
    _check_autograd(g, dense, free, grad)
    _check_projection(g, dense, grad)
    _same(g.gram_diagonal(), (dense * dense).sum(0), "gram_diagonal is not diag(GᵀG)")
    weights = values(g.rows, 5).square()
    _same(
        g.gram_diagonal(weights),
        (dense * dense * weights[:, None]).sum(0),
        "weighted gram_diagonal is wrong",
    )
    _same(torch.from_numpy(g.sparse().toarray()), dense, "sparse() is not G")
    _check_value(g, free)
    narrow = g.unpack(free.float())
    assert narrow.dtype == torch.float32, "unpack does not keep float32"
    _same(narrow.double(), g.unpack(free.float().double()), "float32 is not float64 rounded", 1e-5)


def _check_slices(g: Generator, free: Tensor, grad: Tensor) -> None:
    whole = g.unpack(free)
    cuts = sorted({0, 1, g.rows // 3, g.rows - 1, g.rows})
    parts = list(pairwise(cuts))
    _same(
        torch.cat([g.unpack(free, a, b) for a, b in parts]),
        whole,
        "unpack of slices is not a slice of unpack",
    )
    total = sum(
        (g.adjoint(grad[a:b], a, b) for a, b in parts), torch.zeros(g.dof, dtype=torch.float64)
    )
    _same(total, g.adjoint(grad), "adjoints of slices do not add up")
    there = values(g.prepared_dof, 6)
    sums = there.clone()
    g.accumulate(sums, grad[: g.rows // 2], 0)
    g.accumulate(sums, grad[g.rows // 2 :], g.rows // 2)
    _same(g.prepare_adjoint(sums - there), total, "_accumulate does not add to what is there")
    out = torch.empty(g.rows, dtype=torch.float64)
    assert g.unpack(free, out=out) is out and torch.equal(out, whole), "unpack(out=) differs"
    assert torch.equal(g.unpack(free), whole), "unpack is not the same twice"
    assert torch.equal(g.adjoint(grad), g.adjoint(grad)), "adjoint is not the same twice"


def _check_autograd(g: Generator, dense: Tensor, free: Tensor, grad: Tensor) -> None:
    leaf = free.clone().requires_grad_()
    (first,) = torch.autograd.grad(g.unpack(leaf).square() @ grad, leaf, create_graph=True)
    _same(
        first.detach(),
        dense.T @ (2 * (dense @ free) * grad),
        "the gradient of unpack is not its adjoint",
    )
    (second,) = torch.autograd.grad(first.sum(), leaf)
    expected = dense.T @ (2 * grad * (dense @ torch.ones_like(free)))
    _same(second, expected, "the second derivative of unpack is wrong")


def _check_projection(g: Generator, dense: Tensor, target: Tensor) -> None:
    # `project` is that of Ŵ = G W + offset.
    shift = g.offset()
    shift = torch.zeros_like(target) if shift is None else shift
    solution = torch.linalg.lstsq(dense, (target - shift)[:, None], driver="gelsd").solution[:, 0]
    best = (dense @ solution - (target - shift)).norm()
    reached = (dense @ g.project(target) - (target - shift)).norm()
    assert reached <= best * (1 + 1e-6) + 1e-6 * target.norm(), (
        "project is not the least-squares fit"
    )
    if int(torch.linalg.matrix_rank(dense)) == g.dof:
        free = values(g.dof, 4)
        _same(g.project(dense @ free + shift), free, "project is not a left inverse", 1e-5)


def _check_value(g: Generator, free: Tensor) -> None:
    spec = json.loads(json.dumps(g.spec()))
    again = build(spec, g.tables()) if g.name != "scaled" else g
    for copy, how in ((again, "spec"), (pickle.loads(pickle.dumps(g)), "pickle")):
        assert copy == g and hash(copy) == hash(g), (
            f"a generator rebuilt from its {how} is not equal"
        )
        assert torch.equal(copy.unpack(free), g.unpack(free)), (
            f"a generator rebuilt from its {how} is another map"
        )
        assert copy.fingerprint() == g.fingerprint(), (
            f"a generator rebuilt from its {how} has another fingerprint"
        )
    assert deepcopy(g) is g, "a copy of a generator must be itself: it is a value"


def values(n: int, stream: int) -> Tensor:
    """(n,) float64 in [-1, 1), from the counter: no global random state is used."""
    return shift_right(bits(key(0, 900, stream), torch.arange(n)), 32).double() / 2**31 - 1


def _same(left: Tensor, right: Tensor, law: str, tolerance: float = TOLERANCE) -> None:
    gap = float((left - right).abs().max()) if left.shape == right.shape else float("inf")
    allowed = tolerance * max(1.0, float(right.abs().max()))
    assert gap <= allowed, f"{law}: differs by {gap:.3g}, allowed {allowed:.3g}"
