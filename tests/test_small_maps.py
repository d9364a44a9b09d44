"""A step of a small map uses torch's own operations on a table of its entries."""

import pytest
import torch
from torch import nn

import lincon
from lincon.generators import one_nonzero
from lincon.step import tape

GENERATORS = ["ring", "hash", "random", "fold", "identity"]


def constrained(generator, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    lincon.constrain(model, generator, dof=192 if generator == "identity" else 40, **options)
    return model


def step(model):
    """The loss, its gradient, and the gradient of the gradient's square, of a free vector."""
    loss = model(torch.linspace(-1, 1, 24).view(3, 8)).square().sum()
    (gradient,) = torch.autograd.grad(loss, model.free, retain_graph=True)
    (derived,) = torch.autograd.grad(loss, model.free, create_graph=True)
    (second,) = torch.autograd.grad(derived.square().sum(), model.free)
    return loss.detach(), gradient, second


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize(
    "options",
    [{}, {"offset": True}, {"gradient": "gram"}, {"scale": "isometric"}, {"scale": None}],
    ids=str,
)
def test_the_table_makes_the_bits_of_the_tape(generator, options, monkeypatch):
    by_table = step(constrained(generator, **options))
    monkeypatch.setattr(one_nonzero, "FEW", 0)
    by_tape = step(constrained(generator, **options))
    assert torch.equal(by_table[0], by_tape[0])
    assert torch.equal(by_table[1], by_tape[1])
    torch.testing.assert_close(by_table[2], by_tape[2])


@pytest.mark.parametrize(("small", "nodes"), [(one_nonzero.FEW, 0), (0, 1)])
def test_a_small_map_needs_no_node_of_its_own_in_the_graph(small, nodes, monkeypatch):
    monkeypatch.setattr(one_nonzero, "FEW", small)
    made = []
    plain = tape.Tape.track
    monkeypatch.setattr(tape.Tape, "track", lambda *args: made.append(args) or plain(*args))
    model = constrained("ring")
    model(torch.ones(1, 8)).sum().backward()
    assert len(made) == nodes


def test_a_write_to_a_weight_made_by_table_is_refused():
    model = constrained("ring")
    model[0].register_forward_pre_hook(lambda layer, args: torch.relu_(layer.weight))
    with pytest.raises(lincon.TargetError, match="cannot be written to"):
        model(torch.ones(1, 8))
