"""Each mistake gets one clear error that names it and the remedy, and the model is as it was."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import lincon
from tests.models import convnet, images


def constrain(**kwargs):
    return lambda m: lincon.constrain(m, kwargs.pop("generator", "ring"), **{"dof": 0.5, **kwargs})


class LazyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.LazyLinear(4)


def parametrized():
    return nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))


def constrained_already():
    model = nn.Sequential(nn.Linear(3, 3))
    lincon.constrain(model, "ring", dof=0.5)
    return model


class Iterating(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(3, 3))
        self.own = nn.Parameter(torch.randn(3, 3))


BAD = {
    "dof 0": (convnet, constrain(dof=0), "positive"),
    "dof 0.0": (convnet, constrain(dof=0.0), "positive"),
    "dof negative": (convnet, constrain(dof=-3), "positive"),
    "dof nan": (convnet, constrain(dof=math.nan), "finite"),
    "dof inf": (convnet, constrain(dof=math.inf), "finite"),
    "dof above 1": (convnet, constrain(dof=1.5), "fraction above 1"),
    "dof bool": (convnet, constrain(dof=True), "integer or a fraction"),
    "dof text": (convnet, constrain(dof="half"), "integer or a fraction"),
    "dof missing": (convnet, constrain(dof=None), "give dof"),
    "dof above rows": (convnet, constrain(generator="dense", dof=10_000), "exceeds rows=6984"),
    "identity dof": (convnet, constrain(generator="identity"), "must equal rows"),
    "dof below groups": (convnet, constrain(dof=2, scope="tensor"), "at least 3"),
    "dof twice": (convnet, constrain(dof=5, scope={"": 3}), "exclude each other"),
    "generator": (
        convnet,
        constrain(generator="vera"),
        "No generator 'vera'; there are: codebook, .*dense",
    ),
    "option": (convnet, constrain(tiles=3), "no option 'tiles'; there are: order"),
    "option value": (convnet, constrain(order="random"), "'laps' or 'deck'"),
    "tile": (convnet, constrain(tile=0), "tile=0"),
    "deck tile": (convnet, constrain(order="deck", tile=4), "no tiles"),
    "pattern": (
        convnet,
        constrain(where="conv*"),
        r"'conv\*' matches no parameter; there are: 0\.weight",
    ),
    "one of two patterns": (convnet, constrain(where=["0.*", "conv*"]), r"'conv\*' matches no"),
    "predicate": (convnet, constrain(where=lambda n, p: False), "nothing to constrain"),
    "no items": (convnet, constrain(where=[]), r"where=\[\] is empty"),
    "predicate of biases": (
        convnet,
        constrain(where=lambda name, tensor: tensor.dim() == 1),
        r"'0\.bias' is of fewer than two dimensions, .*where='0\.bias', overrides that",
    ),
    "pattern of biases": (convnet, constrain(where="*.bias"), "fewer than two dimensions"),
    "pattern of frozen": (
        lambda: convnet().requires_grad_(False),
        constrain(where="0"),
        r"'0\.weight' is frozen",
    ),
    "type without weights": (convnet, constrain(where=nn.LSTM), "where=LSTM matches no parameter"),
    "where of a number": (convnet, constrain(where=3), r"where=3 is none of its forms; give names"),
    "where of a class": (convnet, constrain(where=Tensor), "none of its forms"),
    "where of numbers": (convnet, constrain(where=["0.weight", 3]), "holds a int; give names"),
    "where of a module": (
        convnet,
        lambda m: lincon.constrain(m, "ring", dof=0.5, where=m[3]),
        "takes names, .* give where='3'",
    ),
    "where of parameters": (
        convnet,
        lambda m: lincon.constrain(m, "ring", dof=0.5, where=[m[3].weight]),
        r"holds a Parameter; give where='3\.weight'",
    ),
    "scope": (convnet, constrain(scope="block"), "'model', 'tensor'"),
    "scope prefixes": (convnet, constrain(scope=["0", "3"]), r"'6\.weight' is under none"),
    "scale": (convnet, constrain(scale="std"), "scale='std'"),
    "init": (convnet, constrain(init="zero"), "init='zero'"),
    "lazy": (LazyNet, constrain(), r"'b\.weight' belongs to a lazy module"),
    "parametrized": (
        parametrized,
        constrain(where="1.*"),
        r"1\.parametrizations.*original0' is parametrized or pruned already",
    ),
    "parametrized by name": (
        parametrized,
        constrain(where="1.parametrizations.weight.original1"),
        r"'1\.parametrizations.*original1' is parametrized .*remove_parametrizations",
    ),
    "pruned": (
        lambda: nn.Sequential(prune.identity(nn.Linear(3, 3), "weight")),
        constrain(),
        r"0\.weight_orig.* already",
    ),
    "twice": (
        constrained_already,
        constrain(where="0.weight"),
        r"'0\.weight' is constrained already",
    ),
    "twice by default": (constrained_already, constrain(), "constrained already"),
    "iterating root": (Iterating, constrain(), "'own' belongs to a Iterating"),
    "sparse embedding": (lambda: nn.Embedding(5, 3, sparse=True), constrain(), "sparse=True"),
    "max_norm": (lambda: nn.Embedding(5, 3, max_norm=1.0), constrain(), "max_norm"),
    "mixed dtypes": (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double()),
        constrain(),
        r"'1\.weight' is not; one free vector has one dtype",
    ),
    "meta": (lambda: nn.Linear(3, 3, device="meta"), constrain(), "meta device"),
    "no parameters": (nn.ReLU, constrain(), "nothing to constrain"),
    "callable options": (
        convnet,
        lambda m: lincon.constrain(
            m, lambda r, d, s: lincon.generators.Ring(r, d, s), dof=0.5, tile=3
        ),
        "given with a callable",
    ),
    "callable shape": (
        convnet,
        lambda m: lincon.constrain(m, lambda r, d, s: lincon.generators.Ring(5, d, s), dof=0.5),
        "6984 rows",
    ),
    "matrix shape": (
        convnet,
        lambda m: lincon.constrain(m, "matrix", matrix=torch.eye(3)),
        "has shape",
    ),
    "matrix missing": (convnet, lambda m: lincon.constrain(m, "matrix", dof=0.5), "give matrix="),
    "matrix nan": (
        lambda: nn.Linear(2, 2),
        lambda m: lincon.constrain(m, "matrix", matrix=torch.full((4, 2), math.nan)),
        "not finite",
    ),
    "nullspace impossible": (
        lambda: nn.Linear(2, 1),
        lambda m: lincon.constrain(
            m, "nullspace", equalities=[[1.0, 1.0], [1.0, 1.0]], values=[0.0, 1.0]
        ),
        "no weights obey",
    ),
    "nullspace full": (
        lambda: nn.Linear(2, 1),
        lambda m: lincon.constrain(m, "nullspace", equalities=torch.eye(2)),
        "no degree of freedom",
    ),
    "nullspace width": (
        lambda: nn.Linear(2, 1),
        lambda m: lincon.constrain(m, "nullspace", equalities=torch.eye(3)),
        "3 columns",
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_named_and_leaves_the_model_as_it_was(mistake):
    build, act, message = BAD[mistake]
    torch.manual_seed(0)
    model = build()
    before = [(name, id(parameter)) for name, parameter in model.named_parameters()]
    classes = [type(m) for m in model.modules()]
    hooks = len(model._forward_pre_hooks)
    with pytest.raises(lincon.LinconError, match=message):
        act(model)
    assert [(name, id(parameter)) for name, parameter in model.named_parameters()] == before
    assert [type(m) for m in model.modules()] == classes
    assert len(model._forward_pre_hooks) == hooks


def test_index_generators_allow_more_dof_than_rows_and_report_the_unused():
    model = convnet()
    lincon.constrain(model, "ring", dof=6984 + 3072)
    assert lincon.summary(model).unused == 3072
    model(images())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.unpack(torch.zeros(8)), "shape"),
        (lambda g: g.unpack(torch.zeros(7, dtype=torch.int64)), "floating-point"),
        (lambda g: g.unpack(torch.zeros(7), 3, 51), "within"),
        (lambda g: g.unpack(torch.zeros(7), -1), "within"),
        (lambda g: g.adjoint(torch.zeros(7)), "shape"),
        (lambda g: g.project(torch.zeros(7)), "shape"),
        (lambda g: g.unpack(torch.zeros(7), out=torch.zeros(49)), "out has shape"),
        (
            lambda g: g.unpack(torch.zeros(7, requires_grad=True), out=torch.zeros(50)),
            "not differentiable",
        ),
    ],
)
def test_a_generator_names_wrong_vectors(call, message):
    with pytest.raises(lincon.LinconError, match=message):
        call(lincon.generators.Ring(50, 7))


def test_saving_where_there_is_no_folder(tmp_path):
    model = convnet()
    lincon.constrain(model, "ring", dof=0.5)
    with pytest.raises(lincon.LinconError, match="not a folder"):
        lincon.save(model, tmp_path / "missing" / "x")
    with pytest.raises(FileNotFoundError):
        lincon.load(convnet(), tmp_path / "missing.safetensors")
