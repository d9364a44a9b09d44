"""Situations of other people's programs: each is right, or refused with a remedy."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

import lincon
from lincon.generators import available

MODES = pytest.mark.parametrize("materialize", ["model", "layer"])
LEARNED = "codebook", "lego", "mask", "matrix", "nullspace", "part"
GENERATORS = pytest.mark.parametrize("generator", [n for n in available() if n not in LEARNED])


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def constrained(generator="ring", build=mlp, **options):
    model = build()
    dof = None if generator == "identity" else 0.5
    lincon.constrain(model, generator, dof=dof, **options)
    return model


# Writes, hooks and attributes that would not last.

WRITES = {
    "data": lambda weight, module: setattr(weight, "data", torch.zeros_like(weight)),
    "assigned": lambda weight, module: setattr(module, "weight", torch.zeros_like(weight)),
    "data in place": lambda weight, module: weight.data.clamp_(-1, 1),
    "copied to": lambda weight, module: weight.copy_(weight),
    "detached": lambda weight, module: weight.detach().zero_(),
    "a view": lambda weight, module: weight[0].zero_(),
    "an item": lambda weight, module: weight.__setitem__(0, 0.0),
    "augmented": lambda weight, module: weight.__imul__(2),
    "initialised": lambda weight, module: nn.init.normal_(weight),
    "an output": lambda weight, module: torch.mul(weight, 2, out=weight),
    "renormalised": lambda weight, module: nn.functional.embedding(
        torch.tensor([0]), weight, max_norm=0.01
    ),
}
MARKS = {
    "hook": lambda weight: weight.register_hook(lambda grad: grad),
    "retained": lambda weight: weight.retain_grad(),
    "attribute": lambda weight: setattr(weight, "mask", 1),
    "gradient": lambda weight: setattr(weight, "grad", torch.zeros_like(weight)),
    "frozen": lambda weight: weight.requires_grad_(False),
}


class Inside(nn.Linear):
    """A layer that does something to its weight in its forward."""

    action = staticmethod(lambda weight, module: None)

    def forward(self, x):
        with torch.no_grad():
            self.action(self.weight, self)
        return super().forward(x)


@pytest.mark.parametrize("name", WRITES)
@MODES
def test_a_write_to_a_generated_weight_inside_of_a_forward_is_refused_as_outside(name, materialize):
    model = nn.Sequential(nn.Linear(6, 8), Inside(8, 3))
    lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
    x = torch.randn(2, 6)
    before = model(x)
    model[1].action = WRITES[name]
    with pytest.raises(lincon.TargetError, match=r"constraint.project|lincon.merge"):
        model(x)
    model[1].action = lambda weight, module: None
    assert torch.equal(model(x), before)
    if name != "renormalised":
        with torch.no_grad(), pytest.raises(lincon.TargetError, match=r"constraint.project"):
            WRITES[name](model[1].weight, model[1])


@pytest.mark.parametrize("name", MARKS)
@MODES
def test_a_hook_or_attribute_of_a_generated_weight_is_refused(name, materialize):
    model = nn.Sequential(nn.Linear(6, 8), Inside(8, 3))
    lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
    with pytest.raises(lincon.TargetError, match="free"):
        MARKS[name](model[1].weight)
    if name in ("hook", "retained"):  # of a forward they are true, see below
        return
    model[1].action = lambda weight, module: MARKS[name](weight)
    with pytest.raises(lincon.TargetError, match="free"):
        model(torch.randn(2, 6))


@MODES
def test_a_hook_of_a_weight_inside_of_a_forward_is_called_in_its_backward(materialize):
    class Hooked(nn.Linear):
        factor = 1

        def forward(self, x):
            self.weight.register_hook(lambda grad: self.factor * grad)
            return super().forward(x)

    grads = []
    for factor in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(Hooked(6, 3))
        model[0].factor = factor
        lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
        model(torch.ones(2, 6)).sum().backward()
        grads.append(model.free.grad)
    torch.testing.assert_close(grads[1], 2 * grads[0])


# Saved tensors.


@MODES
def test_hooks_for_saved_tensors_around_a_forward_get_all_but_generated_weights(materialize):
    model, x = constrained(materialize=materialize), torch.randn(4, 6)
    model(x).sum().backward()
    expected = model.free.grad.clone()
    model.zero_grad()
    packed, unpacked = [], []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.clone(), tensor.shape

    def unpack(saved):
        unpacked.append(saved[1])
        return saved[0]

    with saved_tensors_hooks(pack, unpack):
        loss = model(x).sum()
    loss.backward()
    assert torch.Size([4, 8]) in packed and sorted(packed) == sorted(unpacked)
    torch.testing.assert_close(model.free.grad, expected)


# Derivatives.


@pytest.mark.parametrize("gradient", ["euclidean", "gram", "mean"])
@MODES
def test_two_losses_of_one_forward_each_take_a_backward(gradient, materialize):
    model, x = constrained(gradient=gradient, materialize=materialize), torch.randn(4, 6)
    (model(x).square().sum() + model(x).sum()).backward()
    expected = model.free.grad.clone()
    model.zero_grad()
    out = model(x)
    other = model(x)
    out.square().sum().backward()
    other.sum().backward()
    torch.testing.assert_close(model.free.grad, expected)
    model.zero_grad()
    out = model(x)
    first, second = out[:, 0].sum(), out[:, 1].sum()
    first.backward(retain_graph=True)
    second.backward()
    assert model.free.grad.isfinite().all()


@GENERATORS
@MODES
def test_batched_gradients_are_those_of_a_loop(generator, materialize):
    model, x = constrained(generator, materialize=materialize), torch.randn(4, 6)
    out = model(x).sum(0)
    rows = [torch.autograd.grad(out[i], model.free, retain_graph=True)[0] for i in range(3)]
    (batched,) = torch.autograd.grad(
        model(x).sum(0), model.free, torch.eye(3), is_grads_batched=True
    )
    torch.testing.assert_close(batched, torch.stack(rows))

    def of(free):
        return functional_call(model, {"free": free}, (x,)).sum(0)

    free = model.free.detach()
    jacobian = torch.autograd.functional.jacobian(of, free, vectorize=True)
    torch.testing.assert_close(jacobian, torch.stack(rows))
    forward = torch.autograd.functional.jacobian(of, free, vectorize=True, strategy="forward-mode")
    torch.testing.assert_close(forward, torch.stack(rows))


@GENERATORS
@MODES
@pytest.mark.parametrize("dual", ["free", "input"])
def test_forward_mode_is_the_derivative_of_the_plain_model(generator, materialize, dual):
    model, x = constrained(generator, materialize=materialize), torch.randn(4, 6)
    tangent = torch.randn_like(model.free if dual == "free" else x)

    def of(free, x):
        return functional_call(model, {"free": free}, (x,))

    with forward_ad.dual_level():
        free = model.free.detach()
        if dual == "free":
            free = forward_ad.make_dual(free, tangent)
        inputs = forward_ad.make_dual(x, tangent) if dual == "input" else x
        derivative = forward_ad.unpack_dual(of(free, inputs)).tangent
    step = 1e-3
    plain = constrained(generator).double()
    plain.load_state_dict(model.state_dict())

    def shifted(sign):
        free = plain.free.detach().clone()
        at = x.double()
        if dual == "free":
            free += sign * step * tangent.double()
        else:
            at = at + sign * step * tangent.double()
        return functional_call(plain, {"free": free}, (at,))

    expected = (shifted(1) - shifted(-1)) / (2 * step)
    torch.testing.assert_close(derivative.double(), expected, rtol=2e-3, atol=2e-4)


# Inference mode.


@pytest.mark.parametrize("act", ["constrain", "load", "merge", "prune", "project", "quantize"])
def test_what_is_done_in_inference_mode_leaves_a_model_that_trains(act, tmp_path):
    model, fresh, x = mlp(), mlp(2), torch.randn(4, 6)
    if act != "constrain":
        lincon.constrain(model, "ring", dof=0.5)
    lincon.save(model, tmp_path / "m.safetensors")
    weights = {name: tensor.clone() for name, tensor in mlp(1).state_dict().items()}
    with torch.inference_mode():
        if act == "constrain":
            lincon.constrain(model, "ring", dof=0.5)
        elif act == "load":
            lincon.load(fresh, tmp_path / "m.safetensors")
            model = fresh
        elif act == "merge":
            lincon.merge(model)
        elif act == "prune":
            lincon.prune(model, 0.5)
        elif act == "project":
            lincon.constraints(model)[0].project(weights)
        else:
            lincon.quantize(model)
        model(x)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = model(x).detach()
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), before)


# Dense checkpoints.


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_a_dense_checkpoint_without_the_head_is_fitted_but_for_the_head(scope):
    model, pretrained = constrained(scope=scope), mlp(1).state_dict()
    head = model[4].weight.detach().clone()
    body = {name: tensor for name, tensor in pretrained.items() if not name.startswith("4.")}
    with pytest.warns(lincon.LinconWarning, match="residual"):
        missing = model.load_state_dict(body, strict=False)
    assert {"4.weight", "4.bias"} <= set(missing.missing_keys) and not missing.unexpected_keys
    expected = constrained(scope=scope)
    (constraint,) = lincon.constraints(expected)
    constraint.project({**pretrained, "4.weight": head})
    torch.testing.assert_close(model[0].weight, expected[0].weight)
    torch.testing.assert_close(model[4].weight, expected[4].weight)
    if scope == "tensor":
        torch.testing.assert_close(model[4].weight, head)
    torch.testing.assert_close(model[0].bias, pretrained["0.bias"])
    with pytest.warns(lincon.LinconWarning), pytest.raises(RuntimeError, match=r"4\.weight"):
        constrained(scope=scope).load_state_dict(body)


# The meta device.


@GENERATORS
@MODES
def test_a_model_on_the_meta_device_says_shapes(generator, materialize):
    with torch.device("meta"):
        model = mlp()
    if generator == "identity":
        with pytest.raises(lincon.TargetError, match="meta"):
            lincon.constrain(model, generator)
        return
    lincon.constrain(model, generator, dof=0.5, scale=None, materialize=materialize)
    assert model(torch.empty(4, 6, device="meta")).shape == (4, 3)
    assert model[0].weight.is_meta and model[0].weight.shape == (8, 6)
    model(torch.empty(4, 6, device="meta")).sum().backward()
    assert model.free.grad.is_meta
    counts = lincon.summary(model)
    assert counts.rows == 136 and counts.dof == model.free.numel()
    merged = lincon.merge(model)
    assert merged[0].weight.is_meta and isinstance(merged[0].weight, nn.Parameter)


# Parts of a model, and what was made before.


def test_a_part_that_lacks_the_free_vector_says_so_once():
    model, x = constrained(), torch.randn(4, 6)
    part = nn.Sequential(*list(model.children())[:-1])
    with pytest.warns(lincon.LinconWarning, match="'free' of the Sequential.*train"):
        part(x).sum().backward()
    part(x)  # once
    model[:3](x)
    model(x)
    with torch.no_grad():
        constrained()[:3](x)


def test_a_weight_that_is_read_for_a_penalty_is_no_part():
    model, x = constrained(), torch.randn(4, 6)
    (model(x).sum() + model[0].weight.square().sum()).backward()


def test_an_optimizer_of_a_part_without_the_free_vector_says_so_once():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = mlp(), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.backbone(x))

    model, x = Net(), torch.randn(4, 6)
    lincon.constrain(model, "ring", dof=0.5)
    optimizers = [
        torch.optim.SGD(model.backbone.parameters(), lr=0.1),
        torch.optim.SGD(model.head.parameters(), lr=0.1),
    ]

    def step(steppers):
        model.zero_grad()
        model(x).square().sum().backward()
        for optimizer in steppers:
            optimizer.step()

    step(optimizers)
    with pytest.warns(lincon.LinconWarning, match="'free'.*optimiser"):
        step(optimizers)
    step(optimizers)  # once
    other = Net()
    lincon.constrain(other, "ring", dof=0.5)
    both = [
        torch.optim.SGD([other.free], lr=0.1),
        torch.optim.SGD([p for n, p in other.named_parameters() if n != "free"], lr=0.1),
    ]
    model, optimizers = other, both
    for _ in range(3):
        step(both)


def test_a_frozen_part_says_that_its_generated_weights_move():
    model, x = constrained(), torch.randn(4, 6)
    model[0].bias.requires_grad_(False)

    def step(model):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            model(x).square().sum().backward()
            optimizer.step()

    with pytest.warns(lincon.LinconWarning, match=r"'0.weight'.*where="):
        step(model)
    own = mlp()
    lincon.constrain(own, "ring", dof=0.5, scope="tensor")
    own[0].requires_grad_(False)
    step(own)


@pytest.mark.parametrize("generator", ["ring", "kronecker"])
def test_a_root_that_calls_its_network_generates_once_a_forward(generator, monkeypatch):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def training_step(self, x):
            return self.net(x).square().sum()

    root, x = Root(), torch.randn(4, 6)
    lincon.constrain(root, generator, dof=0.5)
    cls = type(lincon.constraints(root)[0].groups[0].generator)
    root.training_step(x).backward()
    first = root.free.grad.clone()
    calls = []
    write = cls._write
    monkeypatch.setattr(
        cls, "_write", lambda self, *args: calls.append(len(args[0])) or write(self, *args)
    )
    root.zero_grad()
    root.training_step(x).backward()
    assert calls == [136] if generator == "kronecker" else len(calls) <= 1
    torch.testing.assert_close(root.free.grad, first)
    again = copy.deepcopy(root)
    again.zero_grad()
    again.training_step(x).backward()
    torch.testing.assert_close(again.free.grad, first)
    lincon.merge(root)
    root.training_step(x).backward()
    assert not any(m._forward_pre_hooks for m in root.modules())


def test_an_average_of_the_model_made_before_is_warned_of():
    model = mlp()
    average = torch.optim.swa_utils.AveragedModel(model)
    with pytest.warns(lincon.LinconWarning, match="AveragedModel made before"):
        lincon.constrain(model, "ring", dof=0.5)
    other = nn.Linear(6, 6)
    lincon.constrain(other, "ring", dof=0.5)
    assert average is not None


# What other libraries do to a model.


class Pretrained(nn.Module):
    """Ties and initialises its weights as models of Hugging Face do."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
        self.tie_weights()

    def tie_weights(self):
        parameter = self.get_parameter("embed.weight")
        self.head.weight = parameter

    def init_weights(self):
        nn.init.normal_(self.embed.weight)
        self.tie_weights()

    def forward(self, tokens):
        return self.head(self.embed(tokens))


def test_tying_generated_weights_again_changes_nothing():
    torch.manual_seed(0)
    model, tokens = Pretrained(), torch.tensor([[1, 2, 3]])
    lincon.constrain(model, "ring", dof=0.5)
    before = model(tokens)
    model.tie_weights()
    assert torch.equal(model(tokens), before)
    with pytest.raises(lincon.TargetError, match=r"lincon.merge"):
        model.init_weights()
    twin = copy.deepcopy(model)
    twin.tie_weights()
    assert twin.tie_weights.model is twin
    lincon.merge(model)
    model.tie_weights()
    assert "tie_weights" not in vars(model) and model.head.weight is model.embed.weight


@MODES
def test_values_that_a_forward_fetches_itself_are_those_it_uses(materialize):
    """As offloading does: parameters are on the meta device but for the forward."""
    model, x = constrained(materialize=materialize), torch.randn(4, 6)
    expected = model(x).detach()
    values = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.to("meta")
    forward = type(model).forward

    def fetching(x):
        for name, value in values.items():
            path, _, attribute = name.rpartition(".")
            model.get_submodule(path)._parameters[attribute] = nn.Parameter(value)
        return forward(model, x)

    model.forward = fetching
    assert torch.equal(model(x), expected)


# What a review found.


def test_a_merged_model_trains_while_its_constraint_is_held():
    model, x = mlp(), torch.randn(4, 6)
    constraint = lincon.constrain(model, "ring", dof=0.5)
    lincon.merge(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(x).sum().backward()
        optimizer.step()
    assert constraint.dof == 68


@MODES
def test_a_weight_inside_of_a_forward_can_be_read_in_every_way(materialize):
    class Reads(nn.Linear):
        def forward(self, x):
            rows = torch.stack(list(self.weight))
            parameter = nn.Parameter(self.weight.detach().clone())
            with torch.no_grad():
                twin = copy.deepcopy(self.weight)
            with torch.inference_mode():
                super().forward(x)
            self.weight.grad = None
            return x @ rows.T + self.bias + 0 * (parameter.sum() + twin.sum())

    model, x = nn.Sequential(Reads(6, 3)), torch.randn(4, 6)
    lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
    model(x).sum().backward()
    weight = lincon.constraints(model)[0].weights()["0.weight"]
    (expected,) = torch.autograd.grad((x @ weight.T).sum(), model.free)
    torch.testing.assert_close(model.free.grad, expected)


@MODES
@pytest.mark.parametrize("mark", ["retain_grad", "register_hook"])
def test_a_weight_that_is_marked_after_its_forward_keeps_no_model_alive(mark, materialize):
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 6)
            self.seen = []

        def forward(self, x):
            self.seen.append(self.inner.weight)
            return self.inner(x)

    model = Keeps()
    lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
    out = model(torch.randn(4, 6))
    weight = model.seen.pop()
    getattr(weight, mark)(*([print] if mark == "register_hook" else []))
    alive = weakref.ref(model)
    del model, out, weight
    gc.collect()
    assert alive() is None


def test_fake_tensors_stay_what_they_are():
    model = constrained()
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(torch.randn(4, 6)).shape == (4, 3)


def test_tying_by_assignment_and_ties_of_an_instance_go_on():
    class Assigned(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))
            self.tie_weights()

        def tie_weights(self):
            self.b.weight = self.a.weight
            self.d.bias = self.c.bias

        def forward(self, x):
            return self.d(self.c(self.b(self.a(x))))

    model = Assigned()
    lincon.constrain(model, "ring", dof=0.5)
    model.d.bias = nn.Parameter(torch.ones(6))
    model.tie_weights()
    assert model.d.bias is model.c.bias and torch.equal(model.a.weight, model.b.weight)
    other, ties = mlp(), []
    other.tie_weights = lambda: ties.append(1)
    lincon.constrain(other, "ring", dof=0.5)
    other.tie_weights()
    lincon.merge(other)
    other.tie_weights()
    assert ties == [1, 1]


def test_optimisers_that_wait_and_biases_that_are_frozen_are_not_warned_of():
    model, x = constrained(), torch.randn(4, 6)
    waiting = torch.optim.SGD([model.free], lr=0.1)
    first = torch.optim.SGD([p for n, p in model.named_parameters() if n != "free"], lr=0.1)
    for _ in range(3):
        model(x).sum().backward()
        first.step()
    waiting.step()
    model = constrained()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "free")
    optimizer = torch.optim.SGD([model.free], lr=0.1)
    for _ in range(3):
        model(x).sum().backward()
        optimizer.step()
    teacher, student = mlp(1), mlp(0)
    average = torch.optim.swa_utils.AveragedModel(teacher)
    lincon.constrain(student, "ring", dof=0.5)
    assert average is not None


def test_a_part_that_was_looked_at_without_gradients_is_warned_of_when_it_trains():
    model, x = constrained(), torch.randn(4, 6)
    part = nn.Sequential(*list(model.children())[:-1])
    with torch.no_grad():
        part(x)
    with pytest.warns(lincon.LinconWarning, match="will not train"):
        part(x)


def test_a_part_that_opens_a_tape_is_no_owner_and_does_not_open_it_twice():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            if self.write:
                torch._foreach_add_([self.net[0].weight.detach()], 1.0)
            return self.net(x)

    root, x = Root(), torch.randn(4, 6)
    root.write = False
    lincon.constrain(root, "ring", dof=0.5)
    for _ in range(2):
        root.net(x)
    assert lincon.constraints(root.net) == [] and lincon.summary(root.net).dof == 0
    expected = root(x)
    root.write = True
    with pytest.raises(lincon.TargetError, match="written to"):
        root(x)
    root.write = False
    assert torch.equal(root(x), expected)


@MODES
@GENERATORS
def test_a_backward_in_a_backward_of_one_forward_loses_no_gradient(generator, materialize):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.nested = nn.Linear(6, 6), nn.Linear(6, 3), True

        def forward(self, x):
            hidden = torch.tanh(self.a(x))
            total = hidden.sum()

            def again(grad):
                nested, self.nested = self.nested, False  # its own hook would nest another one
                if nested:
                    torch.autograd.grad(
                        total, list(self.parameters()), retain_graph=True, allow_unused=True
                    )

            hidden.register_hook(again)
            return self.b(hidden)

    model, x = constrained(generator, Nested, materialize=materialize), torch.randn(4, 6)
    model(x).sum().backward()
    gradient = model.free.grad.clone()
    model.zero_grad()
    model.nested = False
    model(x).sum().backward()
    assert torch.equal(model.free.grad, gradient)


def test_a_layer_to_which_another_tool_gave_a_class_freezes_and_evaluates():
    """FSDP2 puts a class of its own before that of each module it shards."""

    class Sharded: ...

    model = constrained(where="0")
    layer = model[0]
    layer.__class__ = type("ShardedLinear", (Sharded, type(layer)), {})
    assert not model.eval()[0].training
    layer.requires_grad_(False)
    assert not model.free.requires_grad
    model.train()
    assert layer.training
