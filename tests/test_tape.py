"""What a step does once, and what it does for each tensor."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import lincon
from lincon.generators import Fastfood, Kronecker, Mask, Ring, one_nonzero
from lincon.kernels import cpu
from lincon.maps.piece import Piece
from lincon.maps.scaled import Scaled
from lincon.step import layout
from lincon.step.model_tape import ModelTape


def layers(sizes=(8, 8, 8, 8)):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in zip((8, *sizes), (*sizes, 8), strict=True)))


def pruned(materialize):
    model = layers()
    lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
    lincon.prune(model, 0.5)
    return model


def isometric(materialize):
    model = layers()
    lincon.constrain(model, "ring", dof=0.5, materialize=materialize, scale="isometric")
    return model


def dense_gradient(model, x):
    """Of the free vector: Gᵀ times the gradients of an ordinary model with these weights."""
    (constraint,) = lincon.constraints(model)
    (group,) = constraint.groups
    twin = layers([len(layer.bias) for layer in model][:-1])
    biases = {name: p.detach() for name, p in model.named_parameters() if name.endswith("bias")}
    twin.load_state_dict({**{k: v.detach() for k, v in constraint.weights().items()}, **biases})
    twin(x).square().sum().backward()
    named = dict(twin.named_parameters())
    return group.map.adjoint(
        torch.cat([named[entry.name].grad.reshape(-1) for entry in group.ledger])
    )


@pytest.fixture(autouse=True)
def no_tables(monkeypatch):
    """Small maps use the tape too, as large ones do."""
    monkeypatch.setattr(one_nonzero, "FEW", 0)


def counted(monkeypatch, generator, method):
    """A list that grows with every call of a method of a generator's class."""
    calls = []
    plain = getattr(type(generator), method)
    monkeypatch.setattr(
        type(generator), method, lambda self, *args: calls.append(args) or plain(self, *args)
    )
    return calls


@pytest.mark.parametrize("build", [pruned, isometric])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_what_is_done_to_the_free_vector_is_done_once_a_step(build, materialize, monkeypatch):
    model, x = build(materialize), torch.randn(3, 8)
    expected = dense_gradient(model, x)
    map_ = lincon.constraints(model)[0].groups[0].map
    spread, gathered = (
        counted(monkeypatch, map_, "prepare"),
        counted(monkeypatch, map_, "prepare_adjoint"),
    )
    out = model(x).square().sum()
    out.backward()
    assert len(spread) == len(gathered) == 1
    torch.testing.assert_close(model.free.grad, expected)


@pytest.mark.parametrize("generator", ["kronecker", "fastfood"])
def test_gradients_of_rows_that_come_together_wait_for_one_another(generator, monkeypatch):
    """One adjoint for all, and the same gradient; of a graph that is kept, twice."""
    model, x = layers(), torch.randn(3, 8)
    lincon.constrain(model, generator, dof=0.9)
    expected = dense_gradient(model, x)
    calls = counted(monkeypatch, lincon.constraints(model)[0].groups[0].generator, "_accumulate")
    loss = model(x).square().sum()
    loss.backward(retain_graph=True)
    assert [(start, len(grad)) for _, grad, start in calls] == [(0, 320)]
    torch.testing.assert_close(model.free.grad, expected)
    loss.backward()
    torch.testing.assert_close(model.free.grad, 2 * expected)


def test_a_tensor_that_was_not_used_leaves_a_gap_among_those_that_wait(monkeypatch):
    model, x = layers(), torch.randn(3, 8)
    lincon.constrain(model, "kronecker", dof=0.9)
    monkeypatch.setattr(model[2], "forward", lambda x: x)
    (group,) = lincon.constraints(model)[0].groups
    calls = counted(monkeypatch, group.generator, "_accumulate")
    model(x).square().sum().backward()
    assert [(start, len(grad)) for _, grad, start in calls] == [(0, 128), (192, 128)]
    each = [torch.zeros(64) if n == 2 else w for n, w in enumerate(_gradients(model, x))]
    torch.testing.assert_close(
        model.free.grad, group.map.adjoint(torch.cat([g.reshape(-1) for g in each]))
    )


def _gradients(model, x):
    """Of each weight, by reading them once and differentiating by what was read."""
    weights = [layer.weight.detach().clone().requires_grad_() for layer in model]
    for number, weight in enumerate(weights):
        x = x if number == 2 else nn.functional.linear(x, weight, model[number].bias.detach())
    used = [w for n, w in enumerate(weights) if n != 2]
    found = list(torch.autograd.grad(x.square().sum(), used))
    return [*found[:2], None, *found[2:]]


def test_gradients_of_tensors_larger_than_a_run_and_a_grain_do_not_wait(monkeypatch):
    monkeypatch.setattr(layout, "RUN", 1)
    model, x = layers((8, 32, 32, 8)), torch.randn(3, 8)
    lincon.constrain(model, "fastfood", dof=100)
    inner = lincon.constraints(model)[0].groups[0].generator
    assert inner.grain == 128
    calls = counted(monkeypatch, inner, "_accumulate")
    model(x).square().sum().backward()
    sizes = [8 * 8, 32 * 8, 32 * 32, 8 * 32, 8 * 8]
    starts = [sum(sizes[:n]) for n in range(5)]
    assert [start for _, _, start in calls] == [
        starts[3],
        starts[2],
        starts[1],
        starts[0],
        starts[4],
    ]


def test_a_grain_is_what_costs_as_much_in_part():
    assert Ring(1000, 100).grain == 1 << 14 and Kronecker(1000, 100).grain == 1000
    assert Fastfood(1000, 100).grain == 128 and Fastfood(100, 100).grain == 100
    wrapped = Scaled(
        Mask.of(Fastfood(1000, 100), torch.ones(1000, dtype=torch.bool)), [1000], [2.0], False
    )
    assert wrapped.grain == 128


@pytest.mark.parametrize(
    "asked", [{"scale": "isometric"}, {"gradient": "gram"}, {"gradient": "mean"}]
)
def test_norms_of_columns_that_nothing_but_all_of_G_would_give_are_refused_at_once(
    asked, monkeypatch
):
    monkeypatch.setattr(lincon.generator, "COUNTED", 20_000)
    model = nn.Sequential(nn.Linear(50, 50))
    with pytest.raises(
        lincon.LinconError, match=r"500 columns .* takes too long: leave out scale='isometric'"
    ):
        lincon.constrain(model, "fastfood", dof=0.2, **asked)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    lincon.constrain(model, "fastfood", dof=8, **asked)
    model(torch.randn(1, 50)).sum().backward()


def test_a_pruned_weight_passes_no_gradient_on_whatever_it_is():
    shown = torch.arange(6) % 2 == 0
    mask = Mask.of(Ring(6, 6), shown)
    grad = torch.where(shown, 1.0, torch.nan)
    assert bool(mask.adjoint(grad).isfinite().all())
    assert torch.equal(mask.unpack(torch.full((6,), torch.inf)).isinf(), shown)


@pytest.mark.parametrize("materialize", ["model", "layer"])
@pytest.mark.parametrize("trained", [False, True])
def test_a_forward_leaves_nothing_alive(materialize, trained, monkeypatch):
    """What was made of the free vector goes with the graph, without the help of the garbage collector."""
    made = []
    spread = Scaled.prepare
    monkeypatch.setattr(Scaled, "prepare", lambda *args: remember(spread(*args), made))
    model = isometric(materialize)
    made.clear()
    gc.collect()
    gc.disable()
    try:
        with torch.set_grad_enabled(trained):
            loss = model(torch.randn(3, 8)).square().sum()
        if trained:
            loss.backward()
        assert len(made) == 1 and made[0]() is None
    finally:
        gc.enable()


def remember(tensor, made):
    made.append(weakref.ref(tensor))
    return tensor


def test_gradients_that_wait_may_come_from_several_devices():
    model = layers()
    (group,) = lincon.constrain(model, "kronecker", dof=0.9).groups
    (constraint,) = lincon.constraints(model)
    tape = ModelTape(constraint.vectors, constraint.layouts)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for index in range(5):
            tape.add(
                0, [Piece(64 * index, torch.ones(64, device="cuda:0" if index % 2 else "cpu"))]
            )
        assert tape.collected[0].device == model.free.device and tape.ranges[0][-1] == (
            256,
            group.ledger.rows,
        )


@pytest.mark.parametrize("generator", ["ring", "kronecker"])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_a_backward_that_failed_leaves_nothing_for_the_next(generator, materialize):
    model, x = layers(), torch.randn(3, 8)
    lincon.constrain(model, generator, dof=0.9, materialize=materialize)
    expected = dense_gradient(model, x)
    failing = []

    def fail(grad):
        if not failing:
            failing.append(True)
            raise RuntimeError("once")

    model[1].register_forward_hook(lambda module, args, out: out.register_hook(fail) and None)
    loss = model(x).square().sum()
    with pytest.raises(RuntimeError, match="once"):
        loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(model.free.grad, expected)


class _Detached(torch.autograd.Function):
    """Uses a weight, and has no gradient for it."""

    @staticmethod
    def forward(ctx, weight, x):
        return x * weight.detach().sum()

    @staticmethod
    def backward(ctx, grad):
        return None, grad


@pytest.mark.parametrize("run", [1, layout.RUN])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_a_weight_whose_gradient_is_none_can_be_differentiated_twice(materialize, run, monkeypatch):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return _Detached.apply(self.first.weight, x)

    monkeypatch.setattr(layout, "RUN", run)
    model, x = Block(), torch.ones(3, requires_grad=True)
    lincon.constrain(model, "ring", dof=4, materialize=materialize)
    of_x, of_free = torch.autograd.grad(
        model(x).sum(), [x, model.free], create_graph=True, allow_unused=True
    )
    assert torch.equal(of_x, torch.ones(3))
    assert of_free is None or not of_free.any()


@pytest.mark.parametrize("generator", ["ring", "hash", "fold", "sparse", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backward_is_one_call_of_the_kernel_whatever_the_tensors(generator, dtype, monkeypatch):
    """The gradients lie anywhere in memory, some are missing, and each has its own multiplier."""
    pytest.importorskip("numba")
    torch.manual_seed(0)
    model, x = layers((96, 96, 96, 96)).to(dtype), torch.randn(3, 8, dtype=dtype)
    constraint = lincon.constrain(model, generator, dof=300)
    monkeypatch.setattr(model[2], "forward", lambda x: x)
    calls = []
    accumulate = cpu.accumulate
    monkeypatch.setattr(cpu, "accumulate", lambda *a: calls.append(a[2]) or accumulate(*a))
    model(x).square().sum().backward()
    assert [len(pieces) for pieces in calls] == [4]
    (group,) = constraint.groups
    expected = torch.zeros(300)
    for piece in calls[0]:
        group.map.accumulate(expected, piece.rows, piece.start)
    torch.testing.assert_close(model.free.grad, expected.to(dtype))


def test_a_generator_of_others_gets_small_pieces_that_lie_side_by_side_as_one(monkeypatch):
    model, x = layers(), torch.randn(3, 8)
    lincon.constrain(model, "kronecker", dof=0.9, scale="isometric")
    expected = dense_gradient(model, x)
    calls = counted(monkeypatch, lincon.constraints(model)[0].groups[0].generator, "_accumulate")
    model(x).square().sum().backward()
    assert [(start, len(grad)) for _, grad, start in calls] == [(0, 320)]
    torch.testing.assert_close(model.free.grad, expected)
