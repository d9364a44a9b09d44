"""Small maps use torch's own operations on a table of their entries."""

import pytest
import torch
from torch import nn

import lincon
from lincon.generators import one_nonzero
from lincon.generators.one_nonzero import Compiled
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


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["match", "isometric"])
def test_a_step_reads_the_weights_that_are_saved_and_sums_in_float32(generator, dtype, scale):
    """Also in half types, whose multipliers are those of float32: a product is rounded once."""
    model = constrained(generator, scale=scale).to(dtype)
    (constraint,), seen = lincon.constraints(model), {}
    for name in ("0", "2"):
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda layer, *_, name=name: seen.update({name: layer.weight}))
    out = model(torch.linspace(-1, 1, 24, dtype=dtype).view(3, 8))
    for name, weight in seen.items():
        assert torch.equal(weight, model.get_submodule(name).weight)
        assert torch.equal(weight, constraint.weights()[f"{name}.weight"])
    weights = list(seen.values())
    grads = torch.autograd.grad(out.square().sum(), [*weights, model.free])
    linear_map = constraint.groups[0].map
    wide = torch.promote_types(dtype, torch.float32)
    sums = linear_map.adjoint(torch.cat([g.reshape(-1) for g in grads[:-1]]).to(wide))
    assert torch.equal(grads[-1], sums.to(dtype))


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_rows_of_a_small_map_are_made_by_its_table(generator, dtype, monkeypatch):
    (group,) = lincon.constraints(constrained(generator))[0].groups
    free, grad = (torch.randn(n, dtype=dtype) for n in (group.map.dof, group.map.rows))
    with monkeypatch.context() as patched:
        patched.setattr(Compiled, "_compiled", lambda *_: pytest.fail("the kernel was called"))
        both = group.map.unpack(free), group.map.adjoint(grad)
    monkeypatch.setattr(one_nonzero, "FEW", 0)
    (other,) = lincon.constraints(constrained(generator))[0].groups
    assert torch.equal(both[0], other.map.unpack(free))
    assert torch.equal(both[1], other.map.adjoint(grad))
