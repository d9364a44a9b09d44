"""Channels taken away: exactly those, at the cost that was counted, for plain and constrained networks alike."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lincon
from lincon.exporting import merged_copy
from lincon.slicing import slice_tensors
from lincon.tasks.classification.compression.channels import costs, groups, importance, macs, slim
from lincon.tasks.classification.compression.knapsack import SHARE, Distillation, chosen, fit, solve
from lincon.tasks.classification.compression.pruning import PRUNED
from lincon.tasks.classification.data.digits import Digits
from lincon.tasks.classification.models import MODELS
from lincon.tasks.experiments.schemes.body import body_weights
from lincon.tasks.experiments.training.models import load
from lincon.tasks.experiments.training.recipe import Cell, Recipe
from lincon.tasks.experiments.training.training import train
from tests.models import Raw, Tied, convnet
from tests.test_indoor import Killed, KillIn

RESNET = partial(MODELS["resnet20"], 1, 10, 8, width=0.3)


def images(n=4):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def model(constraint=None, seed=0):
    torch.manual_seed(seed)
    made = RESNET().eval()
    with torch.no_grad():  # norms that are not all alike
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    if constraint:
        lincon.constrain(made, constraint, dof=0.4, where=body_weights(made))
    return made


def random_masks(network, seed=0):
    draw = torch.Generator().manual_seed(seed)
    masks = {}
    for name, group in groups(network).items():
        mask = torch.rand(len(network.get_submodule(group.norms[0]).weight), generator=draw) < 0.6
        mask[0] = True
        masks[name] = mask
    return masks


@pytest.mark.filterwarnings("ignore:dense. a forward makes")
@pytest.mark.parametrize("constraint", [None, "ring", "dense", "hash"])
def test_channels_that_say_nothing_can_be_taken_away(constraint):
    """The oracle: with norms of 0 x + 0 the dropped channels are zero everywhere, so nothing changes without them."""
    network = model(constraint)
    masks = random_masks(network)
    with torch.no_grad():
        for name, group in groups(network).items():
            for norm in group.norms:
                network.get_submodule(norm).weight.mul_(masks[name])
                network.get_submodule(norm).bias.mul_(masks[name])
    expected = network(images())
    before = sum(c.dof for c in lincon.constraints(network))
    slim(network, masks)
    torch.testing.assert_close(network(images()), expected, rtol=1e-4, atol=1e-5)
    for name, group in groups(network).items():
        for layer in group.written:
            assert network.get_submodule(layer).out_channels == int(masks[name].sum())
    if constraint:
        (found,) = lincon.constraints(network)
        assert found.rows == sum(w.numel() for w in found.weights().values())
        assert found.dof <= before and found.groups[0].generator.unused() == 0
        network(images()).sum().backward()
        assert network.free.grad.isfinite().all()


def test_every_convolution_is_in_one_group_and_shortcuts_tie():
    network = MODELS["resnet18"](3, 10, 32)
    found = groups(network)
    written = [layer for group in found.values() for layer in group.written]
    convolutions = [
        name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    ]
    assert sorted(written) == sorted(convolutions) and len(set(written)) == len(written)
    assert found["stream.0"].written == ("stem.0", "body.0.0.conv2", "body.0.1.conv2")
    assert found["stream.0"].read == (
        "body.0.0.conv1",
        "body.0.1.conv1",
        "body.1.0.conv1",
        "body.1.0.shortcut.0",
    )
    assert found["stream.3"].read[-1] == "head" and found["body.2.1"].read == ("body.2.1.conv2",)


def test_multiply_adds_are_counted_by_hand():
    network = MODELS["resnet-small"](1, 10, 8)
    by_hand = (
        64 * 9 * (8 + 8 * 8 * 2)
        + 16 * (9 * (8 * 16 + 16 * 16) + 8 * 16)
        + 4 * (9 * (16 * 20 + 20 * 20) + 16 * 20)
        + 200
    )
    assert macs(network, images()) == by_hand
    cost, found = costs(network, images()), groups(network)
    sizes = {
        name: network.get_submodule(group.written[0]).out_channels for name, group in found.items()
    }
    assert (
        sum(cost[name] * sizes[name] for name in found) == by_hand - 200
    )  # the head writes no channel


def test_importance_is_the_sum_of_weight_times_gradient():
    network = model("ring")
    batches = [(images(), torch.tensor([1, 2, 3, 4])), (images(2), torch.tensor([5, 6]))]
    found = importance(network, batches)
    plain = merged_copy(network).requires_grad_(True)
    total = sum(nn.functional.cross_entropy(plain(x), y, reduction="sum") for x, y in batches)
    total.backward()
    for name, group in groups(network).items():
        weights = [plain.get_submodule(layer).weight for layer in group.written]
        by_hand = sum((w * w.grad).abs().sum((1, 2, 3)) for w in weights)
        torch.testing.assert_close(found[name].float(), by_hand.detach(), rtol=1e-4, atol=1e-6)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), min_size=1, max_size=11),
    st.floats(0, 1.1),
)
@settings(deadline=None, max_examples=60)
def test_the_knapsack_is_solved_exactly(items, share):
    worth, cost = (np.array(each, dtype=float) for each in zip(*items, strict=True))
    budget = share * cost.sum()
    taken = solve(worth, cost, budget)
    assert (cost * taken).sum() <= budget + 1e-6
    subsets = np.array(list(product([0, 1], repeat=len(items))))
    best = (subsets @ worth)[subsets @ cost <= budget + 1e-9].max()
    assert (worth * taken).sum() >= best - 1e-6 * max(1, best)


def test_a_group_is_never_emptied():
    worth = {"a": torch.tensor([0.0, 1e-9, 0.0]), "b": torch.tensor([5.0, 6.0])}
    masks = chosen(worth, {"a": 100.0, "b": 1.0}, 2.0)
    assert masks["a"].tolist() == [False, True, False] and masks["b"].all()


@pytest.mark.parametrize("constraint", [None, "ring"])
def test_the_budget_is_met_by_the_network_itself(constraint):
    network, data = model(constraint), Digits(limit=128)
    x = data.prepared(data.test_set[[0]], training=False)[0]
    whole = macs(merged_copy(network), x)
    masks = fit(network, data)
    slim(network, masks)
    assert 0.9 * SHARE * whole < macs(merged_copy(network), x) <= SHARE * whole


def test_distillation_of_a_network_that_lost_nothing_is_zero():
    network = model()
    masks = {name: torch.ones_like(mask) for name, mask in random_masks(network).items()}
    distillation = Distillation(network, merged_copy(network), masks)
    network(images())
    assert distillation.penalty().item() == pytest.approx(0, abs=1e-10)
    with torch.no_grad():
        network.head.bias += 1
    network(images())
    assert distillation.penalty().item() == pytest.approx(
        0.2 / 5, rel=1e-4
    )  # one of stem, three stages, head
    distillation.remove()


@pytest.mark.parametrize("scheme", ["knapsack", "rpg-knapsack"])
def test_slim_models_train_come_back_from_files_and_resume(scheme, tmp_path):
    recipe, cell = Recipe(epochs=4, images=128), Cell("resnet-small", scheme, 0.5, 0)
    network, run = train(recipe, cell, tmp_path / "whole")
    again = load(cell, (1, 10, 8), tmp_path / "whole/model.safetensors").eval()
    assert torch.equal(again(images()), network.eval()(images()))
    assert not any("distillation" in name for name in network.state_dict())
    assert run.dof == (
        sum(c.dof for c in lincon.constraints(network))
        or sum(network.get_parameter(name).numel() for name in body_weights(network))
    )
    with pytest.raises(Killed):
        train(recipe, cell, tmp_path / "cut", callbacks=[KillIn()])
    resumed, _ = train(recipe, cell, tmp_path / "cut", resume=True)
    pairs = zip(network.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_only_residual_networks_lose_channels(tmp_path):
    assert {"knapsack", "rpg-knapsack"} <= set(PRUNED)
    with pytest.raises(lincon.LinconError, match="residual"):
        train(Recipe(epochs=2, images=64), Cell("vit-micro", "knapsack", None, 0), tmp_path)
    assert not list(tmp_path.iterdir())


# Slicing of any model.


def constrained(build, **options):
    network = build()
    lincon.constrain(network, "ring", dof=0.5, **options)
    return network


def test_tensors_are_cut_along_every_dimension():
    network = constrained(convnet, where="3.weight")
    (constraint,) = lincon.constraints(network)
    before, bias = constraint.weights()["3.weight"].detach(), network[0].bias.detach().clone()
    out, into = torch.arange(16) % 3 != 0, torch.arange(8) < 5
    slice_tensors(network, {"3.weight": [out, into], "0.bias": [into]})
    after = network[3].weight
    torch.testing.assert_close(after, before[out][:, into])
    assert (
        torch.equal(network[0].bias, bias[into])
        and after.shape == constraint.ledger.entries[0].shape
    )
    assert lincon.constraints(network)[0].rows == after.numel()


def test_tied_weights_are_cut_together_by_either_name():
    for name in ("embed.weight", "head.weight"):
        network = constrained(Tied, where=["embed.weight"])
        slice_tensors(network, {name: [torch.arange(20) < 12]})
        assert network.embed.weight.shape == network.head.weight.shape == (12, 6)


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ({"nothing": [None]}, "nothing"),
        ({"3.weight": [torch.ones(5, dtype=torch.bool)]}, "3.weight"),
        ({"3.weight": [torch.ones(16)]}, "3.weight"),
        ({"3.weight": [None] * 5}, "3.weight"),
        ({"3.weight": [torch.zeros(16, dtype=torch.bool)]}, "would be left"),
        (
            {"3.weight": [torch.arange(16) < 4], "0.bias": [torch.zeros(8, dtype=torch.bool)]},
            r"0\.bias",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_cut(kept, says):
    network = constrained(convnet, where="3.weight")
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(lincon.TargetError, match=says):
        slice_tensors(network, kept)
    now = network.state_dict()
    assert state.keys() == now.keys() and all(
        torch.equal(now[name], tensor) for name, tensor in state.items()
    )


@pytest.mark.parametrize("how", [{"offset": True}, {"scale": "isometric"}])
def test_what_cannot_be_cut_is_refused(how):
    network = constrained(Raw, **how)
    (constraint,) = lincon.constraints(network)
    entry = constraint.ledger.entries[0]
    with pytest.raises(lincon.LinconError, match="cannot be sliced"):
        slice_tensors(network, {entry.name: [torch.arange(entry.shape[0]) > 0]})


def test_plain_tied_parameters_stay_tied_and_contradictions_are_refused():
    network, rows = Tied(), torch.arange(20) < 12
    slice_tensors(network, {"embed.weight": [rows]})
    assert network.head.weight is network.embed.weight and network.head.weight.shape == (12, 6)
    for build in (Tied, lambda: constrained(Tied, where=["embed.weight"])):
        network = build()
        with pytest.raises(lincon.TargetError, match="another way"):
            slice_tensors(network, {"embed.weight": [rows], "head.weight": [~rows]})
        slice_tensors(network, {"embed.weight": [rows], "head.weight": [rows]})
        assert network.embed.weight.shape == network.head.weight.shape == (12, 6)


def test_a_free_vector_is_not_cut_by_itself():
    network = constrained(convnet)
    with pytest.raises(lincon.TargetError, match="'free' belongs to a constraint"):
        slice_tensors(network, {"free": [torch.ones(len(network.free), dtype=torch.bool)]})


def test_what_reads_no_free_number_any_more_can_be_sliced():
    network = constrained(convnet, where="3.weight")
    rows = lincon.constraints(network)[0].rows
    scores = torch.zeros(16, 8, 3, 3)
    scores[0] = 1
    lincon.prune(network, 20, level="weights", scores={"3.weight": scores})
    slice_tensors(network, {"3.weight": [torch.arange(16) > 0]})
    assert lincon.constraints(network)[0].rows == rows - 72 and not network[3].weight.any()


def test_a_diverged_training_is_named():
    with pytest.raises(lincon.LinconError, match="diverged"):
        solve(np.array([1.0, np.nan]), np.array([1.0, 1.0]), 1.0)


def test_the_teacher_goes_where_the_images_are():
    """A training begins on the CPU and moves the model to its device afterwards."""
    network = model()
    masks = {name: torch.ones_like(mask) for name, mask in random_masks(network).items()}
    network.add_module("distillation", Distillation(network, merged_copy(network), masks))
    network.double()(images().double())
    assert network.distillation.penalty().item() == pytest.approx(0, abs=1e-10)
