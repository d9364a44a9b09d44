"""Models whose blocks are compiled one by one, and the class that equal modules share."""

import copy
import itertools
import threading

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils import parametrize

import lincon

MODES = pytest.mark.parametrize("materialize", ["model", "layer"])


class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))


class Stack(nn.Module):
    def __init__(self, depth=6):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def in_place(blocks, backend):
    for block in blocks:
        block.compile(backend=backend)


def wrapped(blocks, backend):
    for index, block in enumerate(blocks):
        blocks[index] = torch.compile(block, backend=backend)


def run(model, x):
    """Output, and gradients by name."""
    model.zero_grad()
    out = model(x)
    out.square().sum().backward()
    named = model.named_parameters()
    return out.detach(), {n.replace("_orig_mod.", ""): p.grad.clone() for n, p in named}


def graphs(model, compile_blocks, x, runs=3):
    """How many graphs the blocks take in several steps."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compile_blocks(model.blocks, counter)
    for _ in range(runs):
        run(model, x)
    return counter.frame_count


OPTIONS = {
    "ring": {"generator": "ring", "dof": 0.5},
    "offset": {"generator": "hash", "dof": 0.3, "offset": True},
    "isometric": {"generator": "ring", "dof": 0.3, "scale": "isometric"},
    "kronecker": {"generator": "kronecker", "dof": 0.5},
}


@pytest.mark.parametrize("compile_blocks", [in_place, wrapped])
@pytest.mark.parametrize("name", OPTIONS)
def test_equal_blocks_that_are_compiled_one_by_one_share_a_graph_as_plain_ones_do(
    compile_blocks, name
):
    x = torch.randn(3, 8)
    expected_graphs = graphs(Stack(), compile_blocks, x)
    model = Stack()
    lincon.constrain(model, **OPTIONS[name])
    out, gradients = run(model, x)
    assert graphs(model, compile_blocks, x) == expected_graphs
    compiled, compiled_gradients = run(model, x)
    torch.testing.assert_close(compiled, out)
    torch.testing.assert_close(compiled_gradients, gradients)
    with torch.no_grad():
        torch.testing.assert_close(model(x), out)


OTHERS = {
    "one vector": {},
    "a vector for each tensor": {"scope": "tensor"},
    "gram": {"gradient": "gram"},
    "in float64": {"dtype": torch.float64},
}


@MODES
@pytest.mark.parametrize("name", OTHERS)
def test_compiled_blocks_follow_the_free_vector(name, materialize):
    model, reference, x = Stack(3), Stack(3), torch.randn(3, 8)
    options = dict(OTHERS[name])
    dtype = options.pop("dtype", torch.float32)
    x = x.to(dtype)
    for each in (model, reference):
        lincon.constrain(each.to(dtype), "ring", dof=0.5, materialize=materialize, **options)
    torch._dynamo.reset()
    in_place(model.blocks, "aot_eager")
    pairs = [(each, torch.optim.SGD(each.parameters(), lr=0.01)) for each in (model, reference)]
    for _ in range(3):
        for each, optimizer in pairs:
            run(each, x)
            optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(model(x), reference(x))


@MODES
@pytest.mark.parametrize("reentrant", [False, True])
def test_compiled_blocks_are_recomputed_in_the_backward(materialize, reentrant):
    class Recomputed(Stack):
        def forward(self, x):
            for block in self.blocks:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=reentrant)
            return x

    model, reference = Recomputed(3), Stack(3)
    x = torch.randn(3, 8, requires_grad=True)
    for each in (model, reference):
        lincon.constrain(each, "ring", dof=0.5, materialize=materialize)
    torch._dynamo.reset()
    in_place(model.blocks, "aot_eager")
    torch.testing.assert_close(run(model, x), run(reference, x))


def test_a_block_that_is_called_alone_and_one_whose_weight_is_read_before_are_right():
    class Reads(Stack):
        def forward(self, x):
            return super().forward(x) + self.blocks[1].first.weight.sum()

    model, reference, x = Reads(3), Reads(3), torch.randn(3, 8)
    for each in (model, reference):
        lincon.constrain(each, "ring", dof=0.5)
    torch._dynamo.reset()
    in_place(model.blocks, "aot_eager")
    for _ in range(2):
        torch.testing.assert_close(run(model, x), run(reference, x))
    torch.testing.assert_close(model.blocks[0](x), reference.blocks[0](x))


def test_equal_modules_share_a_class_that_looks_like_the_original():
    model, plain = Stack(3), Stack(3)
    constraint = lincon.constrain(model, "ring", dof=0.5, where=["*.weight", "blocks.0.first.bias"])
    first, others = type(model.blocks[0].first), [type(b.second) for b in model.blocks]
    assert set(map(type, (b.first for b in model.blocks[1:]))) == set(others) == {others[0]}
    assert first is not others[0]  # it generates another set of attributes
    assert (
        repr(model) == repr(plain) and first.__name__ == "Linear" and first.__mro__[1] is nn.Linear
    )
    assert [name for name, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
    assert "weight" not in vars(nn.Linear)
    lincon.merge(model)
    assert {type(m) for m in model.modules()} == {type(m) for m in plain.modules()}
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert constraint.rows and all(
        vars(m).keys() == vars(p).keys() for m, p in _pairs(model, plain)
    )


def _pairs(model, plain):
    return zip(model.modules(), plain.modules(), strict=True)


@MODES
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_are_of_the_shared_class_and_have_weights_of_their_own(how, materialize, tmp_path):
    model, x = Stack(2), torch.randn(3, 8)
    lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
    with torch.no_grad():
        expected = model(x)
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        torch.save(model, tmp_path / "model.pt")
        twin = torch.load(tmp_path / "model.pt", weights_only=False)
    assert type(twin.blocks[0].first) is type(model.blocks[0].first)
    with torch.no_grad():
        model.free.zero_()
        assert torch.equal(twin(x), expected) and not torch.equal(model(x), expected)
    torch._dynamo.reset()
    in_place(twin.blocks, "aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(twin(x), expected)


def test_threads_that_run_compiled_blocks_do_not_disturb_one_another():
    model, inputs, results = Stack(3), torch.randn(4, 3, 8), {}
    lincon.constrain(model, "ring", dof=0.5)
    expected = [run(model, x) for x in inputs]
    torch._dynamo.reset()
    in_place(model.blocks, "aot_eager")
    model(inputs[0])  # it is compiled before: torch compiles in one thread at a time

    def act(number):
        for _ in range(5):
            out = model(inputs[number])
            parameters = dict(model.named_parameters())
            found = torch.autograd.grad(out.square().sum(), list(parameters.values()))
            results[number] = out.detach(), dict(zip(parameters, found, strict=True))

    threads = [threading.Thread(target=act, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        torch.testing.assert_close(results[number], expected[number])


# What torch's tools for parametrizations find.


def test_a_module_that_torch_looks_at_as_parametrized_goes_on_and_leaves_others_alone():
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), torch.randn(4, 6)
    lincon.constrain(model, "ring", dof=0.5)
    expected, shared = model(x), type(model[1])
    assert parametrize.is_parametrized(model[0], "weight")
    assert not parametrize.is_parametrized(model[0], "bias")
    assert parametrize.type_before_parametrizations(model[0]) is nn.Linear
    assert torch.equal(model(x), expected) and type(model[1]) is shared
    parametrize.register_parametrization(model[0], "bias", nn.Tanh())
    parametrize.register_parametrization(model[0], "weight", nn.Tanh())
    weights = lincon.constraints(model)[0].weights()
    torch.testing.assert_close(model[0].weight, weights["0.weight"].tanh())
    assert type(model[1]) is shared and torch.equal(model[1].weight, weights["1.weight"])
    with pytest.raises(lincon.TargetError, match="cannot be assigned"):
        model[1].weight = torch.zeros(6, 6)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    parametrize.remove_parametrizations(model[0], "bias", leave_parametrized=False)
    assert torch.equal(twin(x), model(x)) is False
    output = model(x)
    lincon.merge(model)  # what was registered on top stays
    torch.testing.assert_close(model(x), output)
    assert parametrize.is_parametrized(model[0], "weight")


def test_a_module_with_a_parametrization_of_its_own_is_constrained_merged_and_freed_of_it():
    model, x = nn.Linear(6, 6), torch.randn(4, 6)
    parametrize.register_parametrization(model, "bias", nn.Tanh())
    lincon.constrain(model, "ring", dof=0.5, where="weight")
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    lincon.merge(model)
    assert torch.equal(model(x), expected)
    parametrize.remove_parametrizations(model, "bias")
    assert type(model) is nn.Linear and torch.equal(model(x), expected)


def test_hooks_of_saved_tensors_are_not_compiled_with_a_block():
    frames = []
    for materialize in ("model", "layer"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model, x = Stack(depth=3), torch.randn(4, 8)
        lincon.constrain(model, "ring", dof=0.5, materialize=materialize)
        in_place(model.blocks, "aot_eager")
        for _ in range(3):
            run(model, x)
        frames.append(torch._dynamo.utils.counters["frames"]["total"])
        assert not torch._dynamo.utils.counters["graph_break"]
    assert frames[0] == frames[1]


def test_a_layer_of_the_shared_class_that_is_made_anew_is_an_ordinary_one():
    model = Stack(depth=1)
    lincon.constrain(model, "ring", dof=0.5)
    layer = model.blocks[0].first
    new = type(layer)(layer.in_features, layer.out_features)
    assert type(new) is nn.Linear and isinstance(new.weight, nn.Parameter)


def test_a_registry_of_subclasses_goes_on_making_layers():
    made = {}

    class Registered(nn.Linear):
        def __init_subclass__(cls):
            made[cls.__name__] = cls

    class Wide(Registered):
        pass

    model = nn.Sequential(Wide(4, 4))
    lincon.constrain(model, "ring", dof=0.5)
    assert type(made["Wide"](4, 4)) is Wide


def test_a_class_that_allows_no_subclass_is_refused_and_the_model_stays():
    class Final(nn.Linear):
        def __init_subclass__(cls):
            raise TypeError("is final")

    model = nn.Sequential(nn.Linear(4, 4), Final(4, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(lincon.TargetError, match="is final"):
        lincon.constrain(model, "ring", dof=0.5)
    assert type(model[1]) is Final and type(model[0]) is nn.Linear
    assert "_lincon_order" not in vars(model[1])
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], before[k]) for k in before)


class Broken(nn.Module):
    """Its graph breaks in a loop, so that torch compiles what it calls one by one."""

    def __init__(self, sizes):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.fails = False

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            x = layer(x).relu()
            if number in (4, 9):
                torch._dynamo.graph_break()
            if self.fails and number == 6:
                raise ValueError("in the middle")
        return x


@MODES
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("sizes", [[6] * 15, list(range(5, 20))], ids=["equal", "of 14 shapes"])
def test_a_graph_that_breaks_trains_as_without_a_compiler(sizes, offset, materialize):
    """With more layers than torch compiles of one function."""
    torch._dynamo.reset()
    model, x = Broken(sizes), torch.randn(2, sizes[0])
    lincon.constrain(model, "ring", dof=0.3, materialize=materialize, offset=offset)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.05) for each in (model, twin)]
    for _ in range(3):
        for forward, optimizer in zip((compiled, twin), optimizers, strict=True):
            optimizer.zero_grad()
            forward(x).square().sum().backward()
            optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), twin(x))
    torch.testing.assert_close(model.free, twin.free)
    assert made(model) == 0


def test_what_a_broken_graph_has_made_is_gone_when_its_forward_fails():
    torch._dynamo.reset()
    model, x = Broken([6] * 15), torch.randn(2, 6)
    lincon.constrain(model, "ring", dof=0.3)
    model.fails = True
    with pytest.raises(ValueError, match="in the middle"):
        torch.compile(model, backend="aot_eager")(x)
    assert made(model) == 0
    before = model.layers[3].weight.detach().clone()
    with torch.no_grad():
        model.free.mul_(2)
    torch.testing.assert_close(model.layers[3].weight.detach(), 2 * before)


class Trying(nn.Module):
    """Goes on where its inner model fails."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        try:
            return self.inner(x)
        except ValueError:
            return x


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.fails = nn.Linear(6, 6), True

    def forward(self, x):
        x = self.layer(x)
        if self.fails:
            raise ValueError("after the first layer")
        return x


def test_what_a_graph_has_made_is_not_read_when_a_compiled_caller_goes_on():
    """torch calls no hook of a forward that fails within a graph."""
    torch._dynamo.reset()
    model, x = Failing(), torch.randn(2, 6)
    lincon.constrain(model, "ring", dof=10)
    compiled = torch.compile(Trying(model), backend="aot_eager")
    torch.testing.assert_close(compiled(x), x)
    before = model.layer.weight.detach().clone()
    with torch.no_grad():
        model.free.mul_(2)
    torch.testing.assert_close(model.layer.weight.detach(), 2 * before)
    model.fails = False
    model(x)
    assert made(model) == 0


def made(model):
    """How many weights a graph has left in their spots."""
    (constraint,) = lincon.constraints(model)
    return sum(spot.made is not None for spots in constraint.state.spots for spot in spots)


def test_a_weight_that_was_read_may_be_given_to_a_compiled_function():
    """torch itself traces a function of a subclass without end (pytorch/pytorch#175841)."""
    torch._dynamo.reset()
    model, x = nn.Sequential(nn.Linear(6, 6)), torch.randn(2, 6)
    lincon.constrain(model, "ring", dof=10)
    weight = model[0].weight
    out = torch.compile(nn.functional.linear, backend="aot_eager")(x, weight)
    torch.testing.assert_close(out, nn.functional.linear(x, weight))
    out.sum().backward()
    assert model.free.grad is not None
    with pytest.raises(lincon.TargetError, match="cannot be written to"):
        torch.compile(lambda weight: weight.add_(1), backend="aot_eager")(weight)


def test_a_forward_beside_a_compiler_in_another_thread_makes_its_own_weights(monkeypatch):
    """torch's flag that something is compiled is one for all threads."""
    model, x = Stack(2), torch.randn(3, 8)
    lincon.constrain(model, "ring", dof=0.5)
    expected = run(model, x)
    monkeypatch.setattr(torch.compiler, "_is_compiling_flag", True)
    seen = []
    model.blocks[0].register_forward_hook(lambda *_: seen.append(made(model)))
    torch.testing.assert_close(run(model, x), expected)
    assert seen == [0]
