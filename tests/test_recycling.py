"""Large buffers are written again only when nothing holds them."""

import ctypes
import subprocess
import sys

import pytest
import torch

import lincon
from lincon.generators import Ring
from lincon.recycling import LARGE, keep_pages

SIDE = 3072
ROWS, DOF = 2 * SIDE**2, SIDE**2
assert 4 * DOF > LARGE


def test_a_buffer_is_used_again_when_it_was_let_go():
    ring, free = Ring(ROWS, DOF), torch.randn(DOF)
    first = ring.unpack(free)
    place = first.data_ptr()
    del first
    assert ring.unpack(free).data_ptr() == place


def test_a_buffer_that_anything_holds_is_left_alone():
    ring, a, b = Ring(ROWS, DOF), torch.randn(DOF), torch.randn(DOF)
    held = ring.unpack(a)
    view = held[5:9]
    expected = held.clone()
    ring.unpack(b)
    assert torch.equal(held, expected)
    del held
    ring.unpack(b)
    assert torch.equal(view, expected[5:9])


def big(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(SIDE, SIDE), torch.nn.Tanh(), torch.nn.Linear(SIDE, SIDE)
    )
    lincon.constrain(model, "ring", dof=DOF)
    return model


def test_two_forwards_before_one_backward_stay_right():
    model, x = big(), torch.randn(3, SIDE)
    a, b = model(x), model(2 * x)
    (a.square().sum() + b.square().sum()).backward()
    both = model.free.grad.clone()
    model.free.grad = None
    model(x).square().sum().backward()
    model(2 * x).square().sum().backward()
    torch.testing.assert_close(model.free.grad, both, rtol=1e-4, atol=1e-5)


def test_a_forward_between_an_update_and_a_backward_stays_right():
    """A held graph keeps the weights of its own time."""
    model, x = big(), torch.randn(3, SIDE)
    out = model(x)
    expected = torch.autograd.grad(out.square().sum(), model.free, retain_graph=True)[0].clone()
    with torch.no_grad():
        model(x)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), model.free)[0], expected)


def test_gradients_that_are_kept_are_not_overwritten():
    model, x = big(), torch.randn(3, SIDE)
    kept = []
    for scale in (1, 2, 3):
        model.free.grad = None
        model(scale * x).square().sum().backward()
        kept.append((model.free.grad, model.free.grad.clone()))
    assert all(torch.equal(grad, copy) for grad, copy in kept)


def test_training_recycles_from_step_to_step():
    model, x = big(), torch.randn(3, SIDE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    places = set()

    def pack(tensor):
        if tensor.numel() == SIDE * SIDE:
            places.add(tensor.untyped_storage().data_ptr())
        return tensor

    for _ in range(5):
        optimizer.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model(x)
        out.square().sum().backward()
        del out
        optimizer.step()
    assert len(places) == 1


@pytest.mark.parametrize("kept", [False, True])
def test_pages_are_kept_when_asked_for(kept):
    """In a process of its own: a large tensor made again fetches its 19,532 pages anew, unless pages are kept."""
    code = f"""
import resource, torch
from lincon.recycling import keep_pages
assert not {kept} or keep_pages()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
counts = [faults()]
for _ in range(20):  # the first ones may lie side by side, until one fits where another was
    torch.ones(20_000_000)
    counts.append(faults())
print(min(after - before for before, after in zip(counts[1:], counts[2:])))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 1000) == kept


def test_where_the_c_library_cannot_be_asked_nothing_happens(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_pages()
