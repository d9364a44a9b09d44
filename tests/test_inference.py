"""Forwards without gradients: the weights are generated once, and again when anything has changed."""

import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import nn

import lincon
from lincon.step.model_tape import ModelTape


def constrained(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    lincon.constrain(model, "ring", dof=0.5, **options)
    return model


@pytest.fixture
def generations(monkeypatch):
    """Grows by one with each group whose weights a forward generates."""
    made = []
    generate = ModelTape.generate
    monkeypatch.setattr(
        ModelTape, "generate", lambda tape, number: made.append(number) or generate(tape, number)
    )
    return made


def expected(model, x):
    """From weights that are read one by one, which are never held."""
    first, _, second = model
    hidden = nn.functional.linear(x, first.weight, first.bias).relu()
    return nn.functional.linear(hidden, second.weight, second.bias).detach()


x = torch.linspace(-1, 1, 24).view(4, 6)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_weights_are_generated_once_for_many_forwards(without, generations):
    model = constrained()
    with without():
        outputs = [model(x) for _ in range(3)]
    assert generations == [0]
    assert all(torch.equal(output, expected(model, x)) for output in outputs)


def test_frozen_free_vectors_generate_once_while_the_rest_trains(generations):
    model = constrained()
    model.free.requires_grad_(False)
    with torch.inference_mode():
        model(x)
    for _ in range(3):
        model(x).sum().backward()
    assert generations == [0] and model[0].bias.grad is not None


@pytest.mark.parametrize("trains_first", [True, False])
def test_weights_ask_for_gradients_as_the_free_vector_does(generations, trains_first):
    """Also those that were made before it was frozen, or unfrozen."""
    model = constrained()
    for trains in (trains_first, not trains_first):
        model.free.requires_grad_(trains)
        with torch.no_grad():
            model(x)
            assert read_in_forward(model).requires_grad == trains
    assert generations == [0, 0]


def read_in_forward(model):
    read = []
    hook = model[0].register_forward_hook(lambda layer, *_: read.append(layer.weight))
    model(x)
    hook.remove()
    return read[0]


@pytest.mark.parametrize("materialize", ["model", "layer"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_a_forward_runs_the_operations_of_the_merged_model(materialize, mode):
    """torch folds a transposed input into a product only if the weight asks for gradients."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 2, 128, dropout=0.0, batch_first=True)
    model, tokens = nn.Sequential(layer), torch.randn(3, 5, 64)
    lincon.constrain(model, "ring", dof=0.1, materialize=materialize)
    merged = lincon.merge(copy.deepcopy(model))
    counts = [_operations(each, tokens, mode) for each in (model, merged)]
    assert counts[0] == counts[1] and counts[0]["aten::mm"] > 0
    with mode():
        assert torch.equal(model(tokens), merged(tokens))


def _operations(model, tokens, mode):
    with mode(), torch.profiler.profile() as profile:
        model(tokens)
    names = "aten::mm", "aten::bmm", "aten::addmm"
    return {n: sum(e.count for e in profile.key_averages() if e.key == n) for n in names}


def test_a_gradient_for_a_weight_that_was_read_without_gradients_is_refused():
    """It would be lost: the weight has no graph that leads to the free vector."""
    model = constrained()
    with torch.no_grad():
        weight = read_in_forward(model)
    with pytest.raises(lincon.TargetError, match="read it where gradients are enabled, or detach"):
        (weight * model[0].bias.sum()).sum().backward()
    (weight.detach() * model[0].bias.sum()).sum().backward()


def step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def replace(model):
    model.register_parameter("free", nn.Parameter(2 * model.free.detach()))


def rebind(model):
    model.free.data = 2 * model.free.data


def halved(model):
    parameters = dict(model.named_parameters())
    return {k: v * 0.5 if k in parameters else v for k, v in model.state_dict().items()}


def load(model):
    model.load_state_dict(halved(model))


def assign(model):
    model.load_state_dict(halved(model), assign=True)


def project(model):
    (constraint,) = lincon.constraints(model)
    constraint.project({k: v.detach() * 2 for k, v in constraint.weights().items()})


CHANGES = {
    "an optimiser's step": step,
    "a write through .data": lambda model: model.free.data.mul_(2),
    "a write through NumPy": lambda model: model.free.detach().numpy().__imul__(2),
    "another tensor in .data": rebind,
    "another Parameter": replace,
    "load_state_dict": load,
    "load_state_dict(assign=True)": assign,
    "project": project,
    "prune": lambda model: lincon.prune(model, 0.5),
    "quantize": lambda model: lincon.quantize(model, bits=4),
    "a conversion": lambda model: model.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_free_vector_is_noticed(change):
    model = constrained()
    with torch.no_grad():
        before = model(x)
        CHANGES[change](model)
        inputs = x.to(model[0].bias.dtype)
        after = model(inputs)
        assert torch.equal(after, expected(model, inputs))
        assert not torch.equal(after.to(before), before)
        assert torch.equal(model(inputs), after)


def test_autocast_has_weights_of_its_own():
    model = constrained()
    with torch.no_grad():
        wide = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = model(x)
        assert narrow.dtype == torch.bfloat16 and torch.equal(model(x), wide)


def test_a_substituted_free_vector_is_used_and_not_kept(generations):
    model = constrained()
    with torch.no_grad():
        own = model(x)
        other = {"free": 2 * model.free}
        doubled = torch.func.functional_call(model, other, (x,))
        reference = weakref.ref(other.pop("free"))
        assert not torch.equal(doubled, own) and torch.equal(model(x), own)
    assert reference() is None and generations == [0, 0]


def test_copies_and_threads_have_weights_of_their_own():
    model, results = constrained(), {}
    with torch.no_grad():
        own = model(x)
        twin = copy.deepcopy(model)
        twin.free.mul_(2)
        doubled = twin(x)
    assert torch.equal(doubled, expected(twin, x)) and not torch.equal(doubled, own)

    def act(number):
        with torch.no_grad():
            results[number] = [torch.equal(model(x), own) for _ in range(20)]

    threads = [threading.Thread(target=act, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(all(results[number]) for number in range(4))


def test_a_result_that_is_a_view_of_a_weight_can_be_written_to():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 4)

        def forward(self):
            return self.table.weight[1:3]

    model = Rows()
    lincon.constrain(model, "ring", dof=0.5)
    with torch.no_grad():
        rows = model()
        values = rows.clone()
        rows.zero_()
        assert torch.equal(model(), values)


def test_a_refused_write_in_a_forward_is_not_kept():
    class Writes(nn.Linear):
        def forward(self, x):
            torch.nn.init.zeros_(self.weight.view(-1))
            return super().forward(x)

    model = nn.Sequential(Writes(6, 3))
    lincon.constrain(model, "ring", dof=0.5)
    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(lincon.TargetError, match="cannot be written"):
                model(x)
        model[0].__class__ = type(model[0])
        assert float(lincon.constraints(model)[0].weights()["0.weight"].abs().sum()) > 0


@pytest.mark.parametrize("how", ["release", "a training forward"])
def test_the_weights_are_let_go_of(how):
    model, kept = constrained(), []
    (constraint,) = lincon.constraints(model)
    handle = model[0].register_forward_hook(
        lambda module, *_: kept.append(weakref.ref(module.weight))
    )
    with torch.no_grad():
        model(x)
    assert kept[0]() is not None
    handle.remove()
    if how == "release":
        constraint.release()
    else:
        model(x).sum().backward()
    gc.collect()
    assert kept[0]() is None


@pytest.mark.parametrize("options", [{"materialize": "layer"}, {"offset": True}])
def test_layer_by_layer_and_with_an_offset_nothing_is_kept(options):
    model, kept = constrained(**options), []
    model[0].register_forward_hook(lambda module, *_: kept.append(weakref.ref(module.weight)))
    with torch.no_grad():
        assert torch.equal(model(x), expected(model, x))
    gc.collect()
    assert all(reference() is None for reference in kept)


def test_a_write_of_the_same_values_costs_one_generation(generations):
    model, x = constrained(), torch.ones(2, 6)
    with torch.no_grad():
        model(x)
        model.free.copy_(model.free.clone())
        read = []
        model[0].register_forward_hook(lambda layer, *_: read.append(layer.weight))
        model(x)
        model(x)
    assert len(generations) == 2
    assert read[0] is read[1]


@pytest.mark.parametrize("options", [{"offset": True}, {"materialize": "layer"}, {}], ids=str)
def test_autocast_keeps_no_weights_of_forwards_without_gradients(options):
    """For as long as its context it keeps lower copies of what asks for gradients and is no view."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    lincon.constrain(model, "ring", dof=0.1, **options)
    tokens, alive = torch.arange(5), []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            model[1].register_forward_hook(
                lambda layer, *_: alive.append(weakref.ref(layer.weight))
            )
            model(tokens)
            model.free.mul_(2)
        lincon.constraints(model)[0].release()
        gc.collect()
        assert alive and all(weight() is None for weight in alive)


def test_weights_of_both_kinds_are_right_inside_and_outside_of_autocast(generations):
    model = constrained()
    with torch.no_grad():
        for lower in (False, True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=lower):
                model(x)
                assert read_in_forward(model).requires_grad == (not lower)


def test_hooks_on_weights_that_are_held_keep_no_weights():
    model = constrained()
    model[0].register_forward_pre_hook(
        lambda layer, args: layer.weight.register_hook(lambda gradient: None) and None
    )
    with torch.no_grad():
        for _ in range(5):
            model(x)
    assert lincon.constraints(model)[0]._held.kept.weights == []
