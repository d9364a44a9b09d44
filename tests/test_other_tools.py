"""Tools of torch and of others on a constrained model: they work on top of it, or say what to do."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import lincon
from tests.models import Raw

MODES = pytest.mark.parametrize("materialize", ["model", "layer"])
X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def constrained(materialize="model", generator="ring", **options):
    model = plain()
    lincon.constrain(model, generator, dof=0.3, materialize=materialize, **options)
    return model


def state(model):
    """What a refusal must not change."""
    # Torch's tools look for parametrizations, and a module shows them as soon as one asks.
    classes = {
        name: type(module).__name__.removeprefix("Parametrized")
        for name, module in model.named_modules()
        if "parametrizations" not in name
    }
    return sorted(model.state_dict()), classes, model(X).tolist()


# Refusals with the remedy.


def quantize_by_torchao(model):
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())


def several(model):
    weights = [(model[0], "weight"), (model[2], "weight")]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=0.3)


def load_swapped(model):
    lincon.load(PATH, model)


PATH: Any = "m"
"""What is no model."""


def put(module, name, value):
    setattr(module, name, value)


NOW = {
    "pruning a weight": (
        lambda m: prune.l1_unstructured(m[0], "weight", 0.5),
        r"'weight_orig': lincon\.prune .*merge\(copy\.deepcopy\(model\)\)",
    ),
    "pruning by no mask": (lambda m: prune.identity(m[0], "weight"), r"lincon\.prune"),
    "pruning several": (several, r"lincon\.prune"),
    "weight norm": (lambda m: parametrizations.weight_norm(m[0]), r"_WeightNorm .*lincon\.merge"),
    "orthogonal": (lambda m: parametrizations.orthogonal(m[0]), r"_Orthogonal .*lincon\.merge"),
    "removing parametrizations": (
        lambda m: parametrize.remove_parametrizations(m[0], "weight"),
        r"lincon\.merge\(model\) makes it a Parameter",
    ),
    "removing them for the original": (
        lambda m: parametrize.remove_parametrizations(m[0], "weight", leave_parametrized=False),
        r"lincon\.merge\(model\) makes it a Parameter",
    ),
    "torchao": (quantize_by_torchao, r"lincon\.merge\(model\) first"),
    "quantize_dynamic": (
        lambda m: torch.ao.quantization.quantize_dynamic(m, {nn.Linear}),
        r"torch\.ao\.quantization .*merge\(copy\.deepcopy\(model\)\)",
    ),
    "scripting": (torch.jit.script, r"scripted: lincon\.merge\(copy\.deepcopy\(model\)\)"),
    "scripting a layer": (lambda m: torch.jit.script(m[0]), "scripted"),
    "assigning a Parameter": (
        lambda m: put(m[0], "weight", nn.Parameter(torch.ones(16, 8))),
        r"'weight' of this Linear cannot be assigned .*project.*merge",
    ),
    "assigning a tensor": (lambda m: put(m[0], "weight", torch.ones(16, 8)), "cannot be assigned"),
    "assigning None": (lambda m: put(m[0], "weight", None), "cannot be assigned"),
    "registering a Parameter": (
        lambda m: m[0].register_parameter("weight", nn.Parameter(torch.ones(16, 8))),
        "cannot be assigned",
    ),
    "registering a buffer": (
        lambda m: m[0].register_buffer("weight", torch.ones(16, 8)),
        "cannot be assigned",
    ),
    "deleting": (lambda m: delattr(m[0], "weight"), "cannot be deleted"),
    "freezing a weight": (lambda m: m[0].weight.requires_grad_(False), "freeze the free vector"),
    "loading with swapped arguments": (load_swapped, r"'m'.*load\(model, path\)"),
    "saving with swapped arguments": (lambda m: lincon.save(PATH, m), "model, a torch.nn.Module"),
    "merging a path": (lambda m: lincon.merge(PATH), "model, a torch.nn.Module, and got 'm'"),
    "a summary of a path": (lambda m: lincon.summary(PATH), "a torch.nn.Module"),
    "pruning a path": (lambda m: lincon.prune(PATH, 0.5), "a torch.nn.Module"),
    "constraining a name": (lambda m: lincon.constrain(PATH, m, dof=1), "a torch.nn.Module"),
}


@MODES
@pytest.mark.parametrize("looked_at", [False, True], ids=["shared class", "own class"])
@pytest.mark.parametrize("tool", NOW)
@pytest.mark.filterwarnings("ignore")
def test_a_tool_that_would_break_a_weight_is_refused_with_the_remedy(tool, looked_at, materialize):
    model = constrained(materialize)
    if looked_at:
        assert parametrize.is_parametrized(model[0], "weight")
    before = state(model)
    use, message = NOW[tool]
    with pytest.raises(lincon.LinconError, match=message):
        use(model)
    assert state(model) == before
    model(X).sum().backward()
    assert bool(model.free.grad.any())


def prune_free(model):
    prune.l1_unstructured(model, "free", 0.5)
    return lambda: prune.remove(model, "free")


def parametrize_free(model):
    parametrize.register_parametrization(model, "free", nn.Tanh())
    return lambda: parametrize.remove_parametrizations(model, "free", leave_parametrized=False)


def delete_free(model):
    free = model.free
    del model.free
    return lambda: model.register_parameter("free", free)


@MODES
@pytest.mark.parametrize("change", [prune_free, parametrize_free, delete_free])
def test_a_changed_free_vector_is_named_and_can_be_undone(change, materialize, tmp_path):
    model = constrained(materialize)
    undo = change(model)
    for use in (
        lambda: model(X),
        lambda: lincon.save(model, tmp_path / "m"),
        lambda: lincon.merge(model),
    ):
        with pytest.raises(lincon.TargetError, match=r"'free' is no longer a Parameter .*Undo"):
            use()
    assert not (tmp_path / "m").exists()
    undo()
    model(X).sum().backward()
    assert bool(model.free.grad.any())
    lincon.load(fresh := plain(), (lincon.save(model, tmp_path / "m"), tmp_path / "m")[1])
    assert torch.equal(fresh(X), model(X))


@pytest.mark.parametrize(
    "dof, scope", [(1, "model"), (1, ["0", "2"][:1]), (None, {"0": 1, "2": 1.0})], ids=str
)
def test_one_number_for_a_model_is_warned_of(dof, scope):
    where = ["0.weight"] if scope == ["0"] else None
    with pytest.warns(lincon.LinconWarning, match=r"=1 is one number of .*=1\.0 is all of them"):
        lincon.constrain(plain(), "ring", dof=dof, scope=scope, where=where)


@pytest.mark.parametrize("dof", [2, 1.0, 0.5])
def test_other_budgets_are_not_warned_of(dof):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lincon.constrain(plain(), "ring", dof=dof)
        lincon.constrain(nn.Linear(1, 1), "ring", where="weight", dof=1, offset=True)


def test_pruning_to_one_number_is_warned_of():
    with pytest.warns(lincon.LinconWarning, match="keep=1 is one number of 58"):
        lincon.prune(constrained(), 1)


@pytest.mark.filterwarnings("ignore")
def test_each_remedy_works():
    model = constrained()
    merged = lincon.merge(copy.deepcopy(model))
    torch.ao.quantization.quantize_dynamic(merged, {nn.Linear})(X)
    assert torch.equal(torch.jit.script(merged)(X), model(X))
    assert torch.equal(torch.jit.trace(merged, X)(X), model(X))
    assert torch.equal(torch.fx.symbolic_trace(merged)(X), model(X))
    prune.l1_unstructured(merged[0], "weight", 0.5)
    parametrizations.orthogonal(merged[2])


# Tracers.


class InPart(nn.Module):
    """Its body is constrained, and is not the module that is traced."""

    def __init__(self, materialize):
        super().__init__()
        self.body = constrained(materialize)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x))


class RawModel(nn.Module):
    """It reads its own weight, which a tracer of torch.fx would take for a constant."""

    def __init__(self, materialize):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8))
        lincon.constrain(self, "ring", dof=0.5, materialize=materialize)

    def forward(self, x):
        return x @ self.weight.T


class Encoder(nn.Module):
    """Its layer is one node for tracers of torch.fx, which do not look into modules of torch."""

    def __init__(self, materialize):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
        lincon.constrain(self, "ring", dof=0.5, materialize=materialize)

    def forward(self, x):
        return self.layer(x)


def add_graph(model):
    tensorboard = pytest.importorskip("torch.utils.tensorboard._pytorch_graph")
    tensorboard.graph(model, X)


def prepare_fx(model):
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_fx

    prepare_fx(model.eval(), get_default_qconfig_mapping(), (X,))


def extract(model):
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    extraction.create_feature_extractor(model, ["0"])


TRACERS = {
    "jit.trace": lambda model: torch.jit.trace(model, X),
    "jit.trace of an evaluated one": lambda model: torch.jit.trace(model.eval(), X),
    "tensorboard": add_graph,
    "legacy ONNX": lambda model: torch.onnx.export(model, (X,), "unwritten.onnx", dynamo=False),
    "torch.fx": torch.fx.symbolic_trace,
    "quantisation by torch.fx": prepare_fx,
    "torchvision's feature extractor": extract,
}


@MODES
@pytest.mark.parametrize("kind", [constrained, InPart, RawModel, Encoder])
@pytest.mark.parametrize("tracer", TRACERS)
@pytest.mark.filterwarnings("ignore")
def test_a_tracer_is_refused_with_the_remedy(tracer, kind, materialize, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = kind(materialize)
    before = state(model)
    with pytest.raises(lincon.LinconError, match=r"traced.*merge\(copy\.deepcopy\(model\)\)"):
        TRACERS[tracer](model)
    assert state(model) == before and not list(tmp_path.iterdir())
    model.train()(X).sum().backward()


@MODES
@pytest.mark.filterwarnings("ignore")
def test_a_part_is_not_traced_either(materialize):
    model = constrained(materialize)
    for trace in (
        lambda part: torch.jit.trace(part, X),
        lambda part: torch.fx.symbolic_trace(nn.Sequential(part)),
    ):
        with pytest.raises(lincon.LinconError, match="traced"):
            trace(model[0])


@MODES
def test_what_torch_fx_made_can_be_constrained(materialize):
    graph = torch.fx.symbolic_trace(plain())
    lincon.constrain(graph, "ring", dof=0.3, materialize=materialize)
    graph(X).square().sum().backward()
    model = constrained()
    model(X).square().sum().backward()
    assert torch.equal(graph(X), model(X))
    torch.testing.assert_close(graph.free.grad, model.free.grad)


@MODES
@pytest.mark.parametrize("kind", [constrained, InPart, RawModel])
def test_make_fx_records_a_graph_that_follows_the_free_vector(kind, materialize):
    from torch.fx.experimental.proxy_tensor import make_fx

    model = kind(materialize)
    parameters = dict(model.named_parameters())

    def run(parameters, x):
        return torch.func.functional_call(model, parameters, (x,))

    graph = make_fx(run)(parameters, X)
    moved = {name: value + 0.1 for name, value in parameters.items()}
    torch.testing.assert_close(graph(moved, X), run(moved, X))
    assert not torch.equal(graph(moved, X), graph(parameters, X))


@MODES
@pytest.mark.parametrize("kind", [constrained, InPart, RawModel])
def test_a_compiler_is_no_tracer_that_is_refused(kind, materialize):
    model = kind(materialize)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(X), model(X))


# On top of a constraint.


class Exp(nn.Module):
    """Its inverse is not exact, so that it must not be asked for when a model is merged."""

    def forward(self, weight):
        return weight.exp()

    def right_inverse(self, weight):
        return weight.log()


def spectral_norm(model):
    parametrizations.spectral_norm(model[0])


def fake_quantisation(model):
    from torch.ao.quantization import FakeQuantize, MinMaxObserver

    fake = FakeQuantize(MinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8)
    parametrize.register_parametrization(model[2], "weight", fake)


def two_on_one(model):
    parametrize.register_parametrization(model[2], "weight", Exp())
    parametrize.register_parametrization(model[2], "weight", nn.Tanh())


def beside(model):
    parametrize.register_parametrization(model[0], "bias", nn.Tanh())


ON_TOP = {
    "spectral norm": spectral_norm,
    "fake quantisation": fake_quantisation,
    "two on one": two_on_one,
    "beside": beside,
}


@MODES
@pytest.mark.parametrize("generator", ["ring", "dense", "kronecker"])
@pytest.mark.parametrize("options", [{}, {"scope": "tensor"}, {"offset": True}], ids=str)
@pytest.mark.parametrize("kind", ON_TOP)
def test_merging_keeps_what_is_on_top(kind, options, generator, materialize):
    model, reference = constrained(materialize, generator, **options), plain()
    ON_TOP[kind](model)
    ON_TOP[kind](reference)
    model(X).sum().backward()
    assert all(bool(p.grad.any()) for n, p in model.named_parameters() if n.startswith("free"))
    copied = copy.deepcopy(model.eval())
    before = model(X).detach()
    lincon.merge(model)
    assert torch.equal(model(X), before) and torch.equal(copied(X), before)
    assert list(model.state_dict()) == list(reference.state_dict())
    assert [type(m).__qualname__ for m in model.modules()] == [
        type(m).__qualname__ for m in reference.modules()
    ]
    model.train()(X).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    lincon.merge(copied)
    assert torch.equal(copied(X), before)


def test_saving_says_which_one_to_merge(tmp_path):
    model = nn.ModuleDict({"encoder": constrained(), "decoder": constrained()})
    parametrizations.spectral_norm(model["decoder"][0])
    message = r"'decoder\.0\.weight' is no longer .*lincon\.merge\(model\.decoder\)"
    with pytest.raises(lincon.TargetError, match=message):
        lincon.save(model, tmp_path / "m")
    lincon.merge(model["decoder"])
    lincon.save(model, tmp_path / "m")
    assert len(lincon.constraints(model)) == 1


def test_a_recurrent_weight_with_a_norm_on_top_still_trains_when_merged():
    model, x = nn.LSTM(8, 8), torch.randn(3, 2, 8)
    lincon.constrain(model, "ring", dof=0.5)
    parametrizations.spectral_norm(model, "weight_hh_l0")
    before = model.eval()(x)[0].detach()
    lincon.merge(model)
    assert torch.equal(model(x)[0], before)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(x)[0].sum().backward()
        optimizer.step()
    assert not torch.equal(model(x)[0], before)


def test_tied_weights_of_which_one_has_a_norm_on_top():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    model = Tied()
    lincon.constrain(model, "ring", dof=0.5)
    parametrizations.spectral_norm(model.b)
    before = model.eval()(X).detach()
    lincon.merge(model)
    assert torch.equal(model(X), before)
    assert model.b.parametrizations.weight.original is model.a.weight


def test_a_layer_that_another_one_wraps_is_merged_where_it_is():
    class Lora(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.up, self.down = nn.Linear(2, 16, False), nn.Linear(8, 2, False)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    model = constrained()
    model[0] = Lora(model[0])
    before = model(X).detach()
    lincon.merge(model)
    assert torch.equal(model(X), before)
    assert isinstance(model[0].base.weight, nn.Parameter) and type(model[0].base) is nn.Linear


# Methods that write by name.


class Adapted(Raw):
    """A model of transformers with an adapter: it writes what a state_dict has under some names."""

    _hf_peft_config_loaded = True

    def save_pretrained(self, written, state_dict=None):
        state_dict = self.state_dict() if state_dict is None else state_dict
        written.update({name: value for name, value in state_dict.items() if "free" not in name})


def test_a_method_that_writes_by_name_gets_the_generated_weights():
    model = Adapted()
    wanted = {name for name, _ in model.named_parameters()}
    constraint = lincon.constrain(model, "ring", dof=0.5)
    copied, written = copy.deepcopy(model), {}
    copied.save_pretrained(written)
    assert written.keys() == wanted
    assert all(torch.equal(written[name], w) for name, w in constraint.weights().items())
    lincon.merge(copied)
    assert "save_pretrained" not in vars(copied) and "save_pretrained" in vars(model)


@MODES
def test_a_constrained_model_is_not_exported_with_what_lives_in_this_process(materialize):
    with pytest.raises(lincon.LinconError, match=r"lincon\.merge it first"):
        torch.export.export(constrained(materialize), (X,))
