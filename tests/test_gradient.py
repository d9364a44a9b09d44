"""Gradient scaling, and generators that learn their G."""

import pytest
import torch
from torch import nn

import lincon
from lincon.generators import Codebook, available
from tests.cases import GIVEN
from tests.models import convnet, images


def gradients(scaling, name="ring", materialize="model"):
    model = convnet()
    constraint = lincon.constrain(model, name, dof=0.2, gradient=scaling, materialize=materialize)
    model(images()).square().sum().backward()
    return constraint.groups[0], model.free.grad.double()


@pytest.mark.parametrize("name", sorted(set(available()) - {"identity", "codebook", *GIVEN}))
def test_gram_divides_by_the_squared_column_norms(name):
    group, plain = gradients("euclidean", name)
    scales = torch.cat([torch.full((e.numel,), e.scale, dtype=torch.float64) for e in group.ledger])
    gram = (group.generator.dense() * scales[:, None]).square().sum(0)
    expected = plain / gram.where(gram > 0, torch.ones_like(gram))
    for materialize in ("model", "layer"):
        _, scaled = gradients("gram", name, materialize)
        torch.testing.assert_close(
            scaled, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )


def test_gram_is_projected_gradient_descent_in_weight_space():
    """One step of SGD on W moves the weights by the projection of the dense step onto the span of G."""
    model, dense = convnet(), convnet()
    constraint = lincon.constrain(model, "ring", dof=0.2, gradient="gram")
    dense.load_state_dict(lincon.merge(convnet_like(model)).state_dict())
    before = {n: w.detach().clone() for n, w in constraint.weights().items()}
    for m in (model, dense):
        m(images()).square().sum().backward()
        torch.optim.SGD(m.parameters(), lr=0.01).step()
    group = constraint.groups[0]
    moved = (
        torch.cat([(w - before[n]).flatten() for n, w in constraint.weights().items()])
        .double()
        .detach()
    )
    step = (
        torch.cat([(dense.get_parameter(n) - before[n]).flatten() for n in before])
        .double()
        .detach()
    )
    projected = group.map.unpack(group.map.project(step))
    torch.testing.assert_close(moved, projected, rtol=1e-3, atol=1e-3 * float(step.abs().max()))


def convnet_like(model):
    import copy

    return copy.deepcopy(model)


def test_mean_is_the_scaler_of_stable_rps():
    group, plain = gradients("euclidean", "hash")
    _, scaled = gradients("mean", "hash")
    scales = torch.cat([torch.full((e.numel,), e.scale, dtype=torch.float64) for e in group.ledger])
    uses = group.generator.dense().abs()
    sums, counts = uses.T @ scales, uses.sum(0)
    used = counts > 0
    torch.testing.assert_close(scaled[used], (plain * counts / sums**2)[used], rtol=1e-4, atol=1e-5)


def test_a_codebook_is_the_k_means_of_the_weights_and_starts_at_its_centroids():
    model, plain = convnet(), convnet()
    constraint = lincon.constrain(model, "codebook", dof=16)
    wanted = torch.cat([plain.get_parameter(e.name).flatten() for e in constraint.ledger])
    made = torch.cat([w.flatten() for w in constraint.weights().values()])
    assert len(made.unique()) == 16
    from sklearn.cluster import KMeans

    inertia = KMeans(16, n_init=3, random_state=0).fit(wanted.detach()[:, None]).inertia_
    assert float((made - wanted).square().sum()) < 1.1 * inertia
    for index in range(16):
        mine = constraint.groups[0].generator._index == index
        torch.testing.assert_close(model.free[index], wanted[mine].mean(), rtol=1e-4, atol=1e-6)


def test_a_codebook_takes_a_byte_a_weight_in_the_file(tmp_path):
    model = nn.Linear(256, 256, bias=False)
    lincon.constrain(model, "codebook", dof=256)
    size = lincon.save(model, tmp_path / "m")
    assert size < 256 * 256 + 4 * 256 + 4096
    fresh = nn.Linear(256, 256, bias=False)
    lincon.load(fresh, tmp_path / "m")
    assert torch.equal(fresh.weight, model.weight)
    with pytest.raises(lincon.LinconError, match="outside"):
        Codebook(4, 2, index=torch.tensor([0, 1, 3, 0]))


@pytest.mark.parametrize("scaling", ["gram", "mean"])
def test_a_model_that_was_evaluated_first_trains_all_the_same(scaling):
    """What is computed once, in inference mode, and kept must serve a backward too."""
    model = convnet()
    lincon.constrain(model, "ring", dof=0.2, gradient=scaling)
    with torch.inference_mode():
        model(images())
        lincon.constraints(model)[0].groups[0].divisor(model.free)
    model(images()).square().sum().backward()
    assert model.free.grad.isfinite().all()
