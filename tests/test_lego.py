"""Lego: the selection is learned in a warm-up and frozen into an ordinary generator."""

import pytest
import torch
from torch import nn

import lincon
from lincon.generators import lego


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 8, 1),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


X, Y = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(32) % 3


def train(net, steps=20, penalty=False):
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(X), Y)
        (loss + lego.balance(net) if penalty else loss).backward()
        optimizer.step()
    return float(loss)


def test_the_selection_is_learned_and_freezing_changes_no_output(tmp_path):
    net = model()
    net(X)
    assert lego.warm_up(net, splits=2, legos=0.5) == ["2.weight", "4.weight"]
    before = [m.logits.argmax(-1).clone() for m in net.modules() if isinstance(m, lego.WarmUp)]
    first = train(net, 1)
    assert train(net, 30, penalty=True) < first
    after = [m.logits.argmax(-1) for m in net.modules() if isinstance(m, lego.WarmUp)]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), (
        "no selection moved"
    )
    expected = net(X)
    constraint = lego.freeze(net)
    torch.testing.assert_close(net(X), expected, rtol=1e-4, atol=1e-5)
    assert [g.generator.dof for g in constraint.groups] == [
        8 * 36,
        4 * 8,
    ]  # n_lego / splits of the dense weights
    assert isinstance(net[2], nn.Conv2d) and train(net, 10) < first
    lincon.save(net, tmp_path / "m")
    fresh = model()
    fresh(X)
    lincon.load(fresh, tmp_path / "m")
    assert torch.equal(fresh(X), net(X))


def test_the_weight_is_its_legos_by_hand():
    select, coefficient = torch.tensor([[0, 1], [1, 1]]), torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
    generator = lincon.generators.Lego(8, 4, select=select, coefficient=coefficient)
    weights = generator.unpack(torch.tensor([1.0, 2.0, 10.0, 20.0])).view(
        2, 2, 2
    )  # out, splits, fan
    assert weights.tolist() == [[[1, 2], [-10, -20]], [[20, 40], [5, 10]]]


def test_balance_pushes_legos_that_are_used_too_often():
    step = lego.WarmUp(torch.randn(4, 2, 3, 3), 2, 0.5)
    with torch.no_grad():
        step.logits.copy_(torch.tensor([1.0, 0.0]).expand(2, 4, 2))
    assert step.imbalance().tolist() == [4.0, -4.0]


def test_mistakes_are_named():
    net = model()
    net(X)
    with pytest.raises(lincon.TargetError, match="warm_up"):
        lego.freeze(net)
    with pytest.raises(lincon.TargetError, match=r"'6\.weight' is not the weight of a Conv2d"):
        lego.warm_up(net, where=["2.weight", "6.weight"])
    with pytest.raises(lincon.TargetError, match="8 input channels"):
        lego.warm_up(net, splits=3, where=["2.weight"])
    assert list(net.state_dict()) == list(model().state_dict())
    with pytest.raises(lincon.LinconError, match="warm_up"):
        lincon.constrain(net, "lego", dof=0.5)
