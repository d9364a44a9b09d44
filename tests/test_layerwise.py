"""`materialize="layer"`: the same numbers without the whole of Ŵ."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential

import lincon
from lincon.generator import Generator
from lincon.recycling import Recycler
from tests.models import Raw, Reads, Tied, convnet, images


def pair(build, **kwargs):
    models = []
    for materialize in ("model", "layer"):
        model = build()
        lincon.constrain(
            model, kwargs.get("generator", "ring"), dof=0.3, materialize=materialize, scope=kwargs.get("scope", "model")
        )
        models.append(model)
    return models


CASES = {
    "convnet": (convnet, images()),
    "reads": (Reads, torch.randn(2, 6)),
    "tied": (Tied, torch.tensor([[1, 2, 3]])),
    "raw": (Raw, torch.randn(2, 5)),
    "lstm": (lambda: nn.LSTM(4, 5), torch.randn(6, 2, 4)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), torch.randn(2, 5, 8)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("generator", ["ring", "hash", "sparse"])
@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_outputs_and_gradients_are_those_of_the_default(name, generator, scope):
    build, x = CASES[name]

    def seeded():
        torch.manual_seed(0)
        return build()

    grads = []
    for model in pair(seeded, generator=generator, scope=scope):
        for _ in range(2):  # twice: gradients accumulate
            out = model(x)
            out = out[0] if isinstance(out, tuple) else out
            out.square().sum().backward()
        grads.append([out.detach(), *(p.grad for p in model.parameters())])
    for whole, layer in zip(*grads, strict=True):
        torch.testing.assert_close(layer, whole, rtol=1e-4, atol=1e-5)


def test_the_whole_of_the_weights_never_exists_at_once(monkeypatch):
    """The largest number of weights generated at one time is that of a layer, and one buffer takes all gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(50, 50) for _ in range(8)))
    lincon.constrain(model, "ring", dof=0.5, materialize="layer", scale=None)
    made, buffers = [], []
    empty, accumulator = Recycler.empty, Generator.accumulator
    monkeypatch.setattr(Recycler, "empty", lambda self, size, *args: made.append(size) or empty(self, size, *args))
    monkeypatch.setattr(
        Generator, "accumulator", lambda self, *args: buffers.append(self.dof) or accumulator(self, *args)
    )
    model(torch.randn(3, 50)).square().sum().backward()
    assert made.count(2500) == 15  # eight forward; the first layer's input needs no gradient, so seven again
    assert [size for size in made if size != 2500] == buffers == [10_000]


def test_changing_the_free_vector_before_the_backward_is_refused():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.3, materialize="layer")
    out = model(images()).sum()
    with torch.no_grad():
        model.free.mul_(2)
    with pytest.raises(lincon.LinconError, match="before the optimiser's step"):
        out.backward()


def test_second_derivatives_are_those_of_the_dense_model_or_refused():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
    constraint = lincon.constrain(model, "ring", dof=0.5)
    x = torch.randn(3, 6, requires_grad=True)

    def penalty(free):
        out = torch.func.functional_call(model, {"free": free}, (x,))
        (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return grad.square().sum()

    (first,) = torch.autograd.grad(penalty(model.free), model.free)
    step = torch.randn_like(model.free) * 1e-3
    numeric = (penalty(model.free + step) - penalty(model.free - step)) / 2
    torch.testing.assert_close(first @ step, numeric, rtol=1e-2, atol=1e-6)
    constraint.materialize = "layer"
    with pytest.raises(lincon.LinconError, match="second derivatives"):
        torch.autograd.grad(model(x).sum(), x, create_graph=True)


def test_an_error_in_the_forward_leaves_no_hooks_behind():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.3, materialize="layer")
    for error in (RuntimeError, KeyboardInterrupt):

        def fail(*_, error=error):
            raise error

        handle = model[3].register_forward_hook(fail)
        with pytest.raises(error):
            model(images())
        handle.remove()
        model(images()).sum().backward()
    assert not lincon.constraints(model)[0]._opened


def test_it_goes_with_the_rest():
    model = convnet().eval()
    constraint = lincon.constrain(model, "ring", dof=0.3, materialize="layer")
    expected = model(images())
    with torch.no_grad():
        assert torch.equal(model(images()), expected)
    twin = copy.deepcopy(model)
    assert lincon.constraints(twin)[0].materialize == "layer" and torch.equal(twin(images()), expected)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), expected)
    state = {k: v.detach() for k, v in model.named_parameters()}
    x = images()
    gradient = torch.func.grad(lambda f: torch.func.functional_call(model, {**state, "free": f}, (x,)).square().sum())
    model(x).square().sum().backward()
    torch.testing.assert_close(gradient(state["free"]), model.free.grad, rtol=1e-4, atol=1e-4)
    constraint.materialize = "model"
    assert torch.equal(model(x), expected)
    assert torch.equal(lincon.merge(model)(x), expected)


def test_with_activation_checkpointing():
    gradients = []
    for materialize in ("model", "layer"):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
        lincon.constrain(model, "ring", dof=0.3, materialize=materialize)
        x = torch.ones(2, 6, requires_grad=True)
        checkpoint_sequential(model, 2, x, use_reentrant=False).square().sum().backward()
        gradients.append(model.free.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_under_autocast_weights_come_in_its_type_and_gradients_in_float32(materialize):
    model = convnet()
    lincon.constrain(model, "ring", dof=0.3, materialize=materialize)
    seen = []
    model[3].register_forward_pre_hook(lambda m, _: seen.append(m.weight.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(images()).float().square().sum().backward()
    assert seen == [torch.bfloat16] and model.free.grad.dtype == torch.float32
    embedding = Tied()
    lincon.constrain(embedding, "ring", dof=0.3, materialize=materialize)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert embedding.embed(torch.tensor([1])).dtype == torch.float32  # as autocast leaves it
