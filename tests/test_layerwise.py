"""`materialize="layer"`: the same numbers without the whole of Ŵ."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint_sequential
from torch.utils.flop_counter import FlopCounterMode

import lincon
from lincon.maps.piece import Piece
from lincon.recycling import Recycler
from lincon.step.gradient_queue import GradientQueue, SavedBytes
from lincon.step.layer_tape import LayerTape
from tests.models import Raw, Reads, Tied, convnet, images


def pair(build, **kwargs):
    models = []
    for materialize in ("model", "layer"):
        model = build()
        lincon.constrain(
            model,
            kwargs.get("generator", "ring"),
            dof=0.3,
            materialize=materialize,
            scope=kwargs.get("scope", "model"),
        )
        models.append(model)
    return models


CASES = {
    "convnet": (convnet, images()),
    "reads": (Reads, torch.randn(2, 6)),
    "tied": (Tied, torch.tensor([[1, 2, 3]])),
    "raw": (Raw, torch.randn(2, 5)),
    "lstm": (lambda: nn.LSTM(4, 5), torch.randn(6, 2, 4)),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
        torch.randn(2, 5, 8),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("generator", ["ring", "hash", "sparse", "fastfood", "kronecker"])
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
    empty, buffer = Recycler.empty, LayerTape.buffer
    monkeypatch.setattr(
        Recycler, "empty", lambda self, size, *args: made.append(size) or empty(self, size, *args)
    )
    monkeypatch.setattr(
        LayerTape, "buffer", lambda self, g, *args: buffers.append(g.dof) or buffer(self, g, *args)
    )
    model(torch.randn(3, 50)).square().sum().backward()
    assert (
        made.count(2500) == 15
    )  # eight forward; the first layer's input needs no gradient, so seven again
    assert set(made) == {2500} and buffers == [10_000]


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
    assert lincon.constraints(twin)[0].materialize == "layer" and torch.equal(
        twin(images()), expected
    )
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), expected)
    state = {k: v.detach() for k, v in model.named_parameters()}
    x = images()
    gradient = torch.func.grad(
        lambda f: torch.func.functional_call(model, {**state, "free": f}, (x,)).square().sum()
    )
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


class Pooled(nn.Module):
    """Saves most for the backward before it pools, and has most weights after that, as a ResNet has."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(6))

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            x = layer(x.view(-1, 4, 24).mean(1) if number == 2 else x).tanh()
        return x


@pytest.mark.parametrize("scope", ["model", "tensor", ["layers.0", "layers.1", "layers"]])
def test_gradients_that_wait_come_to_the_same_bits(scope, monkeypatch):
    """Where activations are most of the memory the buffer comes late; sums are made in the same order all the same."""
    torch.manual_seed(0)
    model = Pooled()
    lincon.constrain(model, "ring", dof=0.5, materialize="layer", scope=scope)
    waited = []
    should_wait = GradientQueue.should_wait
    monkeypatch.setattr(
        GradientQueue,
        "should_wait",
        lambda queue, *sizes: waited.append(should_wait(queue, *sizes)) or waited[-1],
    )
    x = torch.randn(80, 24)
    model(x).square().sum().backward()
    late = [p.grad.clone() for p in model.parameters()]
    assert any(waited)
    monkeypatch.setattr(GradientQueue, "should_wait", lambda *_: False)
    model.zero_grad()
    model(x).square().sum().backward()
    assert all(
        torch.equal(p.grad, other) for p, other in zip(model.parameters(), late, strict=True)
    )


def test_gradients_wait_only_where_activations_are_most_of_the_memory(monkeypatch):
    model = Pooled()
    lincon.constrain(model, "ring", dof=0.5, materialize="layer")
    most = []
    add = LayerTape.add
    monkeypatch.setattr(
        LayerTape,
        "add",
        lambda tape, *args: add(tape, *args) or most.append(len(tape.queue.gradients)),
    )
    model(torch.randn(8, 24)).square().sum().backward()
    assert max(most) == 0
    model(torch.randn(80, 24)).square().sum().backward()
    assert max(most) >= 1 and model.free.grad is not None


def test_the_buffer_of_the_gradient_is_not_kept_from_step_to_step():
    """What is recycled would be there in every forward: a whole free vector more at the peak."""
    model = nn.Sequential(nn.Linear(2100, 2000, bias=False), nn.Linear(2000, 2100, bias=False))
    lincon.constrain(
        model, "random", dof=8_400_000, materialize="layer", scale=None
    )  # 33.6 MB: large
    for _ in range(2):
        model.zero_grad()
        model(torch.randn(1, 2100)).sum().backward()
    (constraint,) = lincon.constraints(model)
    kept = [buffer for buffer, _ in constraint.groups[0].map._recycler._kept]
    grad = model.free.grad.untyped_storage().data_ptr()
    assert all(buffer.untyped_storage().data_ptr() != grad for buffer in kept)


CONVOLUTIONS = {
    "plain": (lambda: nn.Conv2d(6, 8, 3), (2, 6, 9, 9)),
    "strided, with groups": (lambda: nn.Conv2d(6, 8, 3, 2, 1, groups=2, bias=False), (2, 6, 9, 9)),
    "of each channel": (lambda: nn.Conv2d(6, 6, 3, groups=6), (2, 6, 9, 9)),
    "dilated": (lambda: nn.Conv2d(6, 8, 3, dilation=2), (2, 6, 9, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(6, 8, 3, 2, output_padding=1), (2, 6, 5, 5)),
    "of sequences": (lambda: nn.Conv1d(6, 8, 3), (2, 6, 9)),
    "of volumes": (lambda: nn.Conv3d(6, 8, 3), (2, 6, 5, 5, 5)),
    "of one image": (lambda: nn.Conv2d(6, 8, 3), (6, 9, 9)),
    "in float64": (lambda: nn.Conv2d(6, 8, 3).double(), (2, 6, 9, 9)),
}


def convolve(model, x):
    """Outputs and gradients, of the input too."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    out = model(x)
    out.square().sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("dof", [0.1, 1.0])
@pytest.mark.parametrize("frozen", [False, True])
def test_every_kind_of_convolution_has_the_bits_of_the_default(name, dof, frozen):
    build, shape = CONVOLUTIONS[name]
    results = []
    for materialize in ("model", "layer"):
        torch.manual_seed(0)
        model = nn.Sequential(build())
        lincon.constrain(model, "ring", dof=dof, materialize=materialize)
        model.free.requires_grad_(not frozen)
        torch.manual_seed(1)
        results.append(convolve(model, torch.randn(shape, dtype=model.free.dtype)))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_a_queue_of_gradients_waits_until_the_backward_has_freed_room_for_the_buffer():
    activations = SavedBytes()
    queue = GradientQueue(activations)
    saved = [torch.zeros(100, dtype=torch.uint8) for _ in range(4)]
    for tensor in saved:
        activations.save(tensor)
    activations.save(saved[0].view(10, 10))  # one storage counts once
    assert activations.saved == 400
    assert not queue.should_wait(buffer=100, weights=301)  # the end of the backward is the peak
    queue.put(0, Piece(0, torch.zeros(50, dtype=torch.uint8)))
    assert queue.should_wait(buffer=100, weights=300)  # 150 bytes wanted, none of them freed yet
    activations.use(saved[0])
    assert activations.freed == 0  # its view is still to be used
    activations.use(saved[0].view(10, 10))
    assert activations.freed == 100 and queue.should_wait(buffer=100, weights=300)
    queue.put(0, Piece(1, torch.zeros(150, dtype=torch.uint8)))
    assert queue.should_wait(buffer=100, weights=300)  # 300 bytes, just two buffers ahead
    queue.put(0, Piece(2, torch.zeros(1, dtype=torch.uint8)))
    assert not queue.should_wait(buffer=100, weights=300)
    queue.take(), queue.take(), queue.take()
    assert not queue.should_wait(buffer=100, weights=300)  # there is room for the buffer now


def test_a_convolution_goes_with_autocast_and_counters():
    models = pair(convnet)
    for model in models:
        with torch.autocast("cpu", dtype=torch.bfloat16), FlopCounterMode(display=False) as counted:
            model(images()).float().square().sum().backward()
        model.counted = counted.get_total_flops()
    assert models[0].counted == models[1].counted > 0
    torch.testing.assert_close(models[0].free.grad, models[1].free.grad, rtol=0.02, atol=0.5)


def test_a_weight_that_is_convolved_itself_gets_its_gradient():
    """As one does who smooths filters: there the weight is what a convolution takes as its input, or as both."""

    class Smoothed(nn.Conv2d):
        def forward(self, x):
            smooth = nn.functional.conv2d(
                self.weight.flatten(0, 1)[:, None], torch.ones(1, 1, 3, 3), padding=1
            )
            own = nn.functional.conv2d(self.weight, self.weight).mean()
            return nn.functional.conv2d(x, smooth.view_as(self.weight)) * own

    grads = []
    for model in pair(
        lambda: torch.manual_seed(0) and nn.Sequential(Smoothed(1, 4, 3), Smoothed(4, 4, 3))
    ):
        model(images()).square().sum().backward()
        grads.append(model.free.grad)
    torch.testing.assert_close(*grads)


class _Addressed(torch.autograd.Function):
    """A product by someone's own kernel, which needs the weight where its address says."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        assert isinstance(weight, torch.Tensor) and weight.data_ptr()
        return grad @ weight, grad.T @ x


def test_an_operation_of_the_users_own_gets_an_ordinary_weight():
    class Own(nn.Linear):
        def forward(self, x):
            return _Addressed.apply(x, self.weight) + self.bias

    grads = []
    for model in pair(lambda: torch.manual_seed(0) and nn.Sequential(Own(6, 6), Own(6, 6))):
        model(torch.ones(2, 6)).square().sum().backward()
        grads.append(model.free.grad)
    torch.testing.assert_close(*grads)
