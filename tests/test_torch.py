"""BEHAVIOURS 21-30: what torch does with models, done with constrained ones."""

import copy
import threading

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.utils.checkpoint import checkpoint

import lincon
from lincon.generator import Generator
from tests.cases import GIVEN, OPTIONS, examples
from tests.models import Reads, Tied, convnet, images


def constrained(name="ring", **kwargs):
    model = convnet().eval()
    lincon.constrain(model, name, **{"dof": 0.1, "seed": 3, **kwargs})
    return model


@pytest.fixture
def calls(monkeypatch):
    """Ranges of rows that were written, call by call."""
    seen = []
    ring = lincon.generators.Ring
    original = ring._write

    def counted(self, out, free, start):
        seen.append((start, start + len(out)))
        return original(self, out, free, start)

    monkeypatch.setattr(ring, "_write", counted)
    return seen


def test_generated_once_per_forward_even_if_read_many_times(calls):
    model = Reads()
    lincon.constrain(model, "ring", dof=0.5, scale=None)
    calls.clear()
    model(torch.randn(2, 6)).sum().backward()
    assert calls == [(0, 36)]


def test_weights_are_never_stale():
    model = constrained()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        model(images())  # read under no_grad first
    model(images()).sum().backward()
    assert model.free.grad is not None
    first = model(images())
    optimizer.step()
    assert not torch.equal(model(images()), first)
    before = model[0].weight.clone()
    with torch.no_grad():
        model.free.mul_(2)
    torch.testing.assert_close(model[0].weight.clone(), before * 2)


def test_an_interrupted_forward_leaves_nothing_behind():
    model = constrained()

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model[3].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(images())
    handle.remove()
    before = model[0].weight.clone()
    with torch.no_grad():
        model.free.mul_(2)
    torch.testing.assert_close(model[0].weight.clone(), before * 2)


def test_second_backward_and_two_forwards_before_one_backward():
    model = constrained()
    a, b = model(images()), model(images() * 2)
    (a.sum() + b.sum()).backward()
    both = model.free.grad.clone()
    model.free.grad = None
    model(images()).sum().backward()
    model(images() * 2).sum().backward()
    torch.testing.assert_close(model.free.grad, both)


def test_forwards_in_threads_do_not_disturb_one_another():
    model = constrained()
    expected = model(images())
    wrong = []

    def work(grad):
        for _ in range(20):
            with torch.set_grad_enabled(grad):
                out = model(images())
            if not torch.allclose(out, expected) or out.requires_grad != grad:
                wrong.append(grad)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_gradients_through_functional_call_with_a_replaced_parameter():
    model = constrained()
    state = {k: v.detach() for k, v in model.named_parameters()}
    x = images()

    def loss(free):
        return torch.func.functional_call(model, {**state, "free": free}, (x,)).square().sum()

    moved = (state["free"] * 1.5).requires_grad_()
    loss(moved).backward()
    assert moved.grad.abs().sum() > 0 and model.free.grad is None
    with torch.no_grad():
        model.free.mul_(1.5)
    torch.testing.assert_close(model(images()).square().sum(), loss(moved))
    gradient = torch.func.grad(loss)(moved.detach())
    torch.testing.assert_close(gradient, moved.grad)
    batch = torch.stack([moved.detach(), moved.detach() * 2])
    torch.testing.assert_close(torch.func.vmap(loss)(batch)[0], loss(moved))


@pytest.mark.parametrize("generator", examples(), ids=repr)
def test_compiled_equals_eager_with_no_break_and_no_recompilation(generator):
    """fullgraph: a break is an error. 131 rows are what the model below has."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    first = nn.Linear(generator.rows, 1, bias=False)
    model = nn.Sequential(nn.Linear(3, generator.rows), nn.Tanh(), first)
    lincon.constrain(model, lambda rows, dof, seed: generator, dof=None, where="2.weight")
    twin = copy.deepcopy(model)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, twin)]
    for seed in range(3):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        for forward, optimizer in zip((compiled, twin), optimizers, strict=True):
            optimizer.zero_grad()
            forward(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(model.free, twin.free)
    assert counter.frame_count == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("offset", [False, True, "seed"])
@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_without_gradients_a_compiled_model_is_one_graph_too(materialize, offset, mode):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    lincon.constrain(model, "ring", dof=0.3, offset=offset, materialize=materialize)
    x = torch.randn(2, 6)
    with mode():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, model(x))


def test_inductor_equals_eager():
    torch._dynamo.reset()
    model = constrained()
    expected = model(images())
    expected.square().sum().backward()
    gradient, model.free.grad = model.free.grad, None
    out = torch.compile(model, fullgraph=True)(images())
    out.square().sum().backward()
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.free.grad, gradient, rtol=1e-4, atol=1e-4)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(4)])
        self.recompute: bool | None = None

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(
                layer(x)
                if self.recompute is None
                else checkpoint(layer, x, use_reentrant=self.recompute)
            )
        return x


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(reentrant):
    gradients = []
    for recompute in (None, reentrant):
        model = Checkpointed()
        lincon.constrain(model, "ring", dof=0.3)
        model.recompute = recompute
        x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
        model(x).square().sum().backward()
        gradients.append(model.free.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_autocast_trains_with_float32_gradients():
    model = constrained()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(images()).float().square().sum().backward()
    assert model.free.dtype == model.free.grad.dtype == torch.float32
    reference = constrained()
    reference(images()).square().sum().backward()
    assert torch.nn.functional.cosine_similarity(model.free.grad, reference.free.grad, dim=0) > 0.99


def test_casting_a_model_never_casts_its_generator():
    model = constrained()
    expected = model.double()[0].weight.clone()
    twin = constrained().bfloat16()
    torch.testing.assert_close(twin[0].weight.double(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"identity", *GIVEN}))
def test_merge_is_bit_identical_and_restores_the_keys(name):
    model = constrained(name)
    expected, keys = model(images()), list(convnet().state_dict())
    assert lincon.merge(model) is model
    assert torch.equal(model(images()), expected) and list(model.state_dict()) == keys
    assert not [m for m in model.modules() if type(m).__module__.startswith("lincon")]
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    with pytest.raises(lincon.TargetError, match="no constraint"):
        lincon.merge(model)


def test_merge_exports_to_torch_export_and_onnx(tmp_path):
    model = constrained()
    expected = model(images())
    lincon.merge(model)
    exported = torch.export.export(model, (images(),))
    torch.testing.assert_close(exported.module()(images()), expected)
    program = torch.onnx.export(model, (images(),), dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx")
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(program.model_proto)
    (name,) = [i.name for i in program.model_proto.graph.input]
    torch.testing.assert_close(
        torch.from_numpy(evaluator.run(None, {name: images().numpy()})[0]),
        expected,
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_merged_model_never_generates(calls):
    model = constrained()
    lincon.merge(model)
    calls.clear()
    model(images())
    assert not calls


def test_generators_are_values_not_state():
    generator = examples()[0]
    assert isinstance(generator, Generator)
    model = constrained()
    buffers = {name for name, _ in model.named_buffers()}
    assert buffers == {name for name, _ in convnet().named_buffers()}


def test_tied_weights_get_both_gradients():
    model, reference = Tied(), Tied()
    lincon.constrain(model, "identity", where="embed.weight")
    for m in (model, reference):
        m(torch.tensor([[1, 2, 3]])).square().sum().backward()
    torch.testing.assert_close(model.free.grad, reference.embed.weight.grad.reshape(-1))


@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_gradients_of_no_samples_are_none(materialize):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    lincon.constrain(model, "ring", dof=9, materialize=materialize)
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    found = gradient(parameters, torch.zeros(0, 4))
    assert {name: tuple(g.shape) for name, g in found.items()} == {
        name: (0, *tensor.shape) for name, tensor in parameters.items()
    }
