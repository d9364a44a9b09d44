"""Codebook: clusters of weights, and what pruning left at zero stays at zero."""

import pytest
import torch
from torch import nn

import lincon
from lincon.generators import Codebook
from lincon.testing import check_generator


def test_clusters_by_hand():
    weights = torch.tensor([1.0, 1.2, -3.0, 0.9, -3.1])
    book = Codebook.fit(weights, 2)
    assert book.project(weights).tolist() == pytest.approx([-3.05, 3.1 / 3])
    assert book.sparse().nnz == 5


def test_zeros_have_no_entry():
    weights = torch.tensor([0.0, 1.0, 0.0, 1.2, -3.0, -0.0])
    book = Codebook.fit(weights, 2)
    free = torch.tensor([5.0, 7.0])
    assert book.unpack(free).tolist() == [0, 7, 0, 7, 5, 0]
    assert book.adjoint(torch.ones(6)).tolist() == [1, 2]
    assert book.energy(0, 6) == 0.5
    check_generator(book)


def test_a_layer_of_zeros_stays_so():
    book = Codebook.fit(torch.zeros(7), 1)
    assert book.unpack(torch.tensor([3.0])).count_nonzero() == 0
    assert book.project(torch.zeros(7)).isfinite().all()


@pytest.mark.parametrize("dof", [255, 256])
def test_the_largest_books_of_a_byte(dof):
    weights = torch.arange(-dof // 2, dof).float().repeat(2)
    weights[:3] = 0
    book = Codebook.fit(weights, dof)
    again = lincon.generators.build(book.spec(), book.tables())
    assert torch.equal(book.dense(), again.dense())
    assert book.unpack(torch.ones(dof))[:3].count_nonzero() == 0


def test_a_pruned_model_is_fine_tuned_saved_and_loaded_with_its_zeros(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0
    zeros = [layer.weight == 0 for layer in (model[0], model[2])]
    lincon.constrain(model, "codebook", dof=16, scale=None, init="project")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().sum().backward()
        optimizer.step()
    lincon.save(model, tmp_path / "m")
    fresh = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    lincon.load(fresh, tmp_path / "m")
    for layer, zero in zip((fresh[0], fresh[2]), zeros, strict=True):
        assert torch.equal(layer.weight == 0, zero)
