"""G as a value: `lincon.spec` and `lincon.constrain_like`."""

import copy
import json

import pytest
import torch
from torch import nn

import lincon
from lincon.generators import available

from .cases import GIVEN, OPTIONS
from .models import Tied, convnet, images

TABLES = GIVEN | {"codebook"}


def another():
    """The same architecture with other initial weights."""
    model = convnet()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(0.1)
    return model.eval()


def text_and_back(spec):
    return json.loads(json.dumps(spec))


@pytest.mark.parametrize("name", sorted(set(available()) - TABLES))
@pytest.mark.parametrize("scale", ["match", "isometric", None])
@pytest.mark.parametrize("meta", [False, True])
def test_a_model_constrained_like_another_takes_its_state(name, scale, meta):
    for number, options in enumerate(OPTIONS[name]):
        model, other = convnet().eval(), another()
        scope, offset = ("model", "tensor")[number % 2], (False, True, "seed")[number % 3]
        dof = 1.0 if name == "identity" else 0.2
        options = {"dof": dof, "seed": 5, "scope": scope, "offset": offset, **options}
        lincon.constrain(model, name, scale=scale, **options)
        spec = text_and_back(lincon.spec(model))
        if meta:
            other = other.to("meta")
        lincon.constrain_like(other, spec)
        assert lincon.spec(other) == spec == lincon.spec(model)
        if meta:
            assert all(tensor.is_meta for tensor in (*other.parameters(), *other.buffers()))
            other.to_empty(device="cpu")
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(images()), model(images()))


@pytest.mark.parametrize("name", sorted(set(available()) - TABLES))
def test_it_starts_where_constrain_starts(name):
    for options in OPTIONS[name]:
        model, other = convnet(), convnet()
        dof = 1.0 if name == "identity" else 0.2
        lincon.constrain(model, name, dof=dof, **options)
        lincon.constrain_like(other, lincon.spec(model))
        torch.testing.assert_close(other.free, model.free, rtol=1e-4, atol=1e-5)


def test_how_it_trains_is_in_the_spec():
    model, other = convnet(), convnet()
    lincon.constrain(model, "ring", dof=0.2, gradient="gram", materialize="layer")
    (constraint,) = lincon.constrain_like(other, lincon.spec(model))
    assert constraint.materialize == "layer" and constraint.groups[0].gradient == "gram"


def test_several_owners_several_constraints_and_ties():
    def build():
        model = nn.ModuleDict({"lm": Tied(), "net": convnet()})
        return model

    model, other = build(), build()
    lincon.constrain(model["lm"], "hash", dof=30)
    lincon.constrain(model, "ring", dof=40, where="net.0.weight")
    lincon.constrain(model, "ring", dof=50, where="net.3.weight", seed=2)
    lincon.constrain_like(other, lincon.spec(model))
    assert other.state_dict().keys() == model.state_dict().keys()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other["net"](images()), model["net"](images()))
    tokens = torch.tensor([1, 2])
    assert torch.equal(other["lm"](tokens), model["lm"](tokens))


def test_what_is_no_value_is_refused():
    with pytest.raises(lincon.TargetError, match="no constraint"):
        lincon.spec(convnet())
    model = convnet()
    lincon.constrain(model, "codebook", dof=9)
    with pytest.raises(lincon.LinconError, match=r"table that no seed can rebuild.*lincon\.save"):
        lincon.spec(model)
    model = convnet()
    lincon.constrain(model, "ring", dof=90)
    lincon.quantize(model)
    with pytest.raises(lincon.LinconError, match="quantised"):
        lincon.spec(model)


def first(spec):
    return spec["constraints"][0]["groups"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(format=2), "newer"),
        (lambda s: s.pop("constraints"), "no 'constraints'"),
        (lambda s: s["constraints"][0].update(owner="missing"), "missing"),
        (lambda s: s["constraints"][0].update(gradient="gramm"), "gramm"),
        (lambda s: first(s).pop("free"), "no 'free'"),
        (lambda s: first(s).update(free="a.b"), "no name"),
        (lambda s: first(s).update(free="0"), "0"),
        (lambda s: first(s).update(fingerprint="0" * 32), "another G"),
        (lambda s: first(s)["generator"].update(name="rign"), "rign"),
        (lambda s: first(s)["generator"].update(version=9), "version 9"),
        (lambda s: first(s)["generator"].update(rows=10**15), "do not agree"),
        (lambda s: first(s)["generator"].update(digest="0"), r"lincon\.save"),
        (lambda s: first(s)["ledger"][0][0].__setitem__(0, "renamed"), "renamed"),
        (lambda s: first(s)["ledger"][0].__setitem__(1, [9, 8]), "here"),
        (lambda s: first(s)["ledger"][0].__setitem__(2, float("nan")), "ledger"),
        (lambda s: s["constraints"].append(copy.deepcopy(s["constraints"][0])), "no tensor"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused_and_the_model_is_as_it_was(change, message):
    model, other = convnet(), another()
    lincon.constrain(model, "ring", dof=0.2)
    spec = lincon.spec(model)
    change(spec)
    state = copy.deepcopy(other.state_dict())
    parameters = list(other.parameters())
    with pytest.raises(lincon.LinconError, match=message):
        lincon.constrain_like(other, spec)
    assert [id(p) for p in other.parameters()] == [id(p) for p in parameters]
    assert list(other.state_dict()) == list(state) and not lincon.constraints(other)
    assert not other._state_dict_hooks and not other._load_state_dict_pre_hooks
    for wrong in (None, 3, "spec", [], {"format": 1, "constraints": 3}):
        with pytest.raises(lincon.LinconError):
            lincon.constrain_like(other, wrong)


def test_a_constrained_or_wrapped_model_is_refused():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.2)
    with pytest.raises(lincon.TargetError, match="constrained already"):
        lincon.constrain_like(model, lincon.spec(model))
    with pytest.raises(lincon.TargetError, match="constrain it first"):
        lincon.constrain_like(torch.compile(convnet()), lincon.spec(model))


def sparse(model):
    model[0].sparse = True


UNFIT = {
    "a sparse embedding": (sparse, "sparse=True"),
    "a lazy layer": (lambda model: model.__setitem__(1, nn.LazyLinear(4)), "lazy module"),
    "two dtypes": (lambda model: model[1].half(), "one free vector has one dtype"),
    "integers": (
        lambda model: setattr(model[1], "weight", nn.Parameter(torch.ones(4, 4).int(), False)),
        "only floating-point",
    ),
}


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("name", UNFIT)
def test_tensors_that_constrain_would_refuse_are_refused_from_a_spec_and_a_file(
    name, from_file, tmp_path
):
    def fresh():
        return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 2))

    model, other = fresh(), fresh()
    lincon.constrain(model, "ring", dof=9)
    lincon.save(model, tmp_path / "model")
    change, message = UNFIT[name]
    change(other)
    before = {name: id(parameter) for name, parameter in other.named_parameters()}
    values = {n: p.clone() for n, p in other.named_parameters() if "Lazy" not in str(other)}
    with pytest.raises(lincon.LinconError, match=message):
        if from_file:
            lincon.load(other, tmp_path / "model")
        else:
            lincon.constrain_like(other, lincon.spec(model))
    assert {name: id(parameter) for name, parameter in other.named_parameters()} == before
    assert all(torch.equal(other.get_parameter(name), value) for name, value in values.items())


def test_a_spec_of_a_constraint_without_groups_is_refused():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.2)
    spec = lincon.spec(model)
    spec["constraints"][0]["groups"].clear()
    with pytest.raises(lincon.LinconError, match="no groups"):
        lincon.constrain_like(another(), spec)
