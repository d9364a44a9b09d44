"""Optimisers of a constrained model: which parameters decay, and what is frozen."""

import copy
import pickle
import warnings

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

import lincon
from tests.models import convnet


def transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3))


def steps(model, optimizer, number=4):
    for _ in range(number):
        optimizer.zero_grad()
        model(torch.randn(2, 5, 6)).square().sum().backward()
        optimizer.step()


def by_dimensions(model, decay=0.05):
    """The groups that most recipes make, timm's `param_groups_weight_decay` among them."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    without = [p for n, p in named if p.ndim <= 1 or n.endswith(".bias")]
    rest = [p for _, p in named if not any(p is other for other in without)]
    return [{"params": without, "weight_decay": 0.0}, {"params": rest, "weight_decay": decay}]


def names_that_decay(model, groups):
    decays = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in decays}


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("where", [None, "1"])
def test_free_vectors_and_weights_decay_and_norms_and_biases_do_not(where, scope):
    model = transformer()
    weights = {n for n, p in model.named_parameters() if p.dim() >= 2}
    constraint = lincon.constrain(model, "ring", dof=0.5, where=where, scope=scope)
    groups = lincon.param_groups(model, weight_decay=0.05)
    generated = {entry.name for entry in constraint.ledger}
    assert names_that_decay(model, groups) == {*constraint.free} | (weights - generated)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]


def test_decay_of_the_free_vector_is_that_of_a_step_done_by_hand():
    model = nn.Linear(6, 3)
    lincon.constrain(model, "ring", dof=7)
    before, bias = model.free.detach().clone(), model.bias.detach().clone()
    optimizer = torch.optim.SGD(lincon.param_groups(model, weight_decay=0.1), lr=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.free, before - 0.5 * 0.1 * before)
    assert torch.equal(model.bias, bias)


def test_a_free_vector_of_norms_and_biases_alone_does_not_decay_nor_do_norms_of_pictures():
    model = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm([4, 16]), nn.Linear(16, 3))
    names = {"weights": ["0.weight", "2.weight"], "biases": ["0.bias", "2.bias"]}
    label = {name: label for label, of in names.items() for name in of}
    lincon.constrain(model, "ring", dof=0.5, where=[*label], scope=label.__getitem__)
    groups = lincon.param_groups(model, weight_decay=0.05)
    assert names_that_decay(model, groups) == {"free_weights"}


def test_frozen_and_quantised_vectors_are_in_no_group_and_a_part_without_its_vector_is_refused():
    model = convnet()
    lincon.constrain(model, "ring", dof=0.5)
    with pytest.raises(lincon.TargetError, match=r"not part of this .*Conv2d: give"):
        lincon.param_groups(model[0], weight_decay=0.1)
    lincon.quantize(model)
    (group,) = lincon.param_groups(model, weight_decay=0.1)
    assert not any(parameter is model.free for parameter in group["params"])
    model.requires_grad_(False)
    with pytest.raises(lincon.TargetError, match="no trainable parameter"):
        lincon.param_groups(model, weight_decay=0.1)
    with pytest.raises(lincon.TargetError, match="Expected a model"):
        lincon.param_groups(list(model.parameters()), weight_decay=0.1)


def test_a_recipe_that_takes_the_free_vector_for_a_bias_is_warned_of():
    model = transformer()
    lincon.constrain(model, "ring", dof=0.5, where="1")
    with pytest.warns(lincon.LinconWarning, match="'free' does not decay.*lincon.param_groups"):
        steps(model, torch.optim.AdamW(by_dimensions(model)))


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize(
    "groups",
    [
        lambda model: lincon.param_groups(model, weight_decay=0.05),
        lambda model: [{"params": list(model.parameters()), "weight_decay": 0.0}],
        lambda model: [{"params": list(model.parameters()), "weight_decay": 0.05}],
        lambda model: [
            {
                "params": [p for n, p in model.named_parameters() if "free" in n],
                "weight_decay": 0.0,
            },
            {
                "params": [p for n, p in model.named_parameters() if "free" not in n],
                "weight_decay": 0.05,
            },
        ],
        lambda model: [
            {
                "params": [p for n, p in model.named_parameters() if "free" in n],
                "weight_decay": 0.0,
            },
            *[
                {**group, "params": [p for p in group["params"] if p.dim() > 1]}
                for group in by_dimensions(model)[1:]
            ],
            {
                "params": [
                    p for n, p in model.named_parameters() if p.dim() < 2 and "free" not in n
                ],
                "weight_decay": 0.0,
            },
        ],
    ],
    ids=["ours", "none", "all", "own group", "three groups"],
)
def test_groups_that_say_what_they_mean_are_not_warned_of(groups, scope):
    model = transformer()
    lincon.constrain(model, "ring", dof=0.5, where="1", scope=scope)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(model, torch.optim.SGD(groups(model), lr=1e-3))


@pytest.mark.parametrize(
    "copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_layer_that_is_frozen_freezes_the_free_vector_that_it_has_for_itself(copied):
    model = transformer()
    lincon.constrain(model, "ring", dof=0.5, scope="tensor")
    model = copied(model)
    assert model[0].requires_grad_(False) is model[0]
    before = model[0].weight.detach().clone()
    steps(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1))
    assert torch.equal(model[0].weight, before) and not model[0].bias.requires_grad
    assert model.free_2_weight.requires_grad
    model[0].requires_grad_()
    assert model.free_0_weight.requires_grad and model[0].bias.requires_grad


def test_a_layer_that_shares_its_free_vector_is_not_frozen_alone_and_nothing_changes():
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 3))
    lincon.constrain(model, "ring", dof=0.5)
    for layer in (model[0], model[2]):
        with pytest.raises(lincon.TargetError, match=r"cannot be frozen alone.*'free'.*scope="):
            layer.requires_grad_(False)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model[0].requires_grad_(True)
    model.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model[0].requires_grad_(False)  # its weights move no more
    lincon.merge(model)
    model[0].requires_grad_(True)
    assert model[0].weight.requires_grad and not model[2].weight.requires_grad


def test_an_owner_that_is_one_layer_is_frozen_with_its_free_vector():
    model = nn.Linear(6, 3)
    lincon.constrain(model, "ring", dof=7)
    model.requires_grad_(False)
    assert not model.free.requires_grad


def net(norm):
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=not norm), nn.BatchNorm2d(8) if norm else nn.Tanh()
    )
    return nn.Sequential(backbone, nn.Flatten(), nn.LazyLinear(3))


@pytest.mark.parametrize("norm", [False, True])
def test_a_backbone_that_lightning_freezes_is_warned_of(norm):
    model, x = net(norm), torch.randn(4, 3, 8, 8)
    model(x)
    lincon.constrain(model, "ring", dof=0.5)
    BackboneFinetuning.freeze(model[0], train_bn=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    with pytest.warns(lincon.LinconWarning, match=r"'0' is frozen.*'0\.0\.weight'.*where="):
        for _ in range(2):
            model(x).sum().backward()
            optimizer.step()


def test_a_block_that_is_frozen_later_is_warned_of_when_the_steps_have_doubled():
    model = transformer()
    lincon.constrain(model, "ring", dof=0.5, scope=["0", "1", "2"])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    steps(model, optimizer, 5)
    model[1].requires_grad_(False)
    steps(model, optimizer, 2)
    with pytest.warns(lincon.LinconWarning, match=r"'1' is frozen.*model\.free_1\.requires_grad_"):
        steps(model, optimizer, 1)


def test_muon_takes_the_matrices_and_another_optimiser_the_free_vector():
    model = transformer()
    lincon.constrain(model, "ring", dof=0.5, where="1")
    with pytest.raises(ValueError, match="2D"):
        torch.optim.Muon(model.parameters())
    matrices = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    muon, adam = torch.optim.Muon(matrices), torch.optim.AdamW(rest)
    for _ in range(3):
        model(torch.randn(2, 5, 6)).square().sum().backward()
        muon.step()
        adam.step()
    assert not any(torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("optimiser", ["Adam", "SGD"])
def test_adam_does_not_see_what_gram_divides_by(optimiser):
    """A divisor that stays the same changes a step of SGD, and none of what Adam normalises."""
    found = {}
    for gradient in ("euclidean", "gram"):
        model, x = transformer(), torch.linspace(-1, 1, 60).view(2, 5, 6)
        lincon.constrain(model, "ring", dof=0.05, gradient=gradient)
        step = getattr(torch.optim, optimiser)(model.parameters(), lr=0.01)
        for _ in range(20):
            step.zero_grad()
            model(x).square().mean().backward()
            step.step()
        found[gradient] = model.free.detach()
    difference = (found["gram"] - found["euclidean"]).abs().max()
    moved = (found["euclidean"] - found["euclidean"].mean()).abs().max()
    assert (difference < 1e-3 * moved) == (optimiser == "Adam")
