"""torch_geometric: its layers write their own entries into a state_dict."""

import pytest
import torch
from torch import Tensor, nn

import lincon

from .models import SEEDS

geometric = pytest.importorskip("torch_geometric.nn")


class Graphs(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = geometric.GCNConv(4, 8)
        self.second = geometric.SAGEConv(8, 8)
        self.head = geometric.Linear(8, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.first(x, edges).relu(), edges).relu())
        return out


def graph() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(10, 4, generator=generator), torch.randint(10, (2, 30), generator=generator)


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_no_generated_name_is_in_a_state_dict_and_files_are_loaded(tmp_path, generator, mode):
    model = Graphs(0)
    constraint = lincon.constrain(model, generator, dof=0.3, materialize=mode)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(*graph()).square().sum().backward()
    optimizer.step()
    generated = {name for entry in constraint.ledger for name in entry.names}
    assert generated and not generated & set(model.state_dict())
    expected = model(*graph())

    lincon.save(model, tmp_path / "graphs.safetensors")
    loaded = Graphs(5)
    lincon.load(loaded, tmp_path / "graphs.safetensors")
    assert torch.equal(loaded(*graph()), expected)

    other = Graphs(5)
    lincon.constrain(other, generator, dof=0.3, materialize=mode)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(*graph()), expected)

    lincon.merge(model)
    plain = Graphs(6)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(*graph()), expected)
