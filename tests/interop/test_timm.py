"""timm: its optimiser factory takes every vector for a bias, and the free vector is one."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from unittest.mock import MagicMock

import pytest
import torch

import lincon

from .models import SEEDS, batch, constrained

if find_spec("timm") is None:
    pytest.skip("timm is not installed", allow_module_level=True)


class NoTorchvision:
    """Finds torchvision for timm: its models would need it, its optimisers do not."""

    def find_spec(self, name, path=None, target=None):
        is_its_own = name.partition(".")[0] == "torchvision"
        return ModuleSpec(name, self, is_package=True) if is_its_own else None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module):
        pass


@pytest.fixture(scope="module")
def factory():
    finder = NoTorchvision()
    sys.meta_path.insert(0, finder)
    from timm.optim import create_optimizer_v2

    yield create_optimizer_v2
    sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_groups_of_ours_decay_the_free_vector_and_no_bias(factory, generator, mode):
    model = constrained(0, generator, mode)
    groups = lincon.param_groups(model, weight_decay=0.1)
    optimizer = factory(groups, opt="adamw", lr=0.01, weight_decay=0.0)
    decay = {
        name: group["weight_decay"]
        for group in optimizer.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    assert decay.pop("free") == 0.1 and set(decay.values()) == {0.0}
    inputs, targets = batch(32)
    before = torch.nn.functional.cross_entropy(model(inputs), targets)
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
    assert loss < before


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_the_average_over_a_training_is_what_its_averaged_vector_generates(
    factory, generator, mode
):
    from timm.utils import ModelEmaV2, ModelEmaV3

    for kind in (ModelEmaV2, ModelEmaV3):
        model = constrained(0, generator, mode)
        average = kind(model, decay=0.5)
        expected = model[3].weight.detach().clone()
        for _ in range(4):
            with torch.no_grad():
                model.free.add_(torch.randn(len(model.free)) / 4)
            average.update(model)
            expected = (expected + model[3].weight.detach()) / 2
        torch.testing.assert_close(average.module[3].weight, expected)
        fresh = constrained(5, generator, mode)
        fresh.load_state_dict(average.module.state_dict())
        assert torch.equal(fresh[3].weight, average.module[3].weight)
