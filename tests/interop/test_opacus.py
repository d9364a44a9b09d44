"""opacus: gradients of each sample, and private training of the free vector."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lincon.integrations.opacus import constant_offset

from .models import SEEDS, batch, constrained

opacus = pytest.importorskip("opacus")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("offset", [False, True, "seed"])
@pytest.mark.parametrize("generator, mode", SEEDS)
def test_gradients_of_samples_are_those_of_one_sample_at_a_time(generator, mode, offset):
    model = constrained(0, generator, mode, offset=offset)
    single = copy.deepcopy(model)
    inputs, targets = batch()
    with constant_offset(model):
        private = opacus.GradSampleModule(model, loss_reduction="sum")
        nn.functional.cross_entropy(private(inputs), targets, reduction="sum").backward()
    for index, (one, target) in enumerate(zip(inputs, targets, strict=True)):
        single.zero_grad()
        nn.functional.cross_entropy(single(one[None]), target[None]).backward()
        for ours, theirs in zip(private.parameters(), single.parameters(), strict=True):
            torch.testing.assert_close(ours.grad_sample[index], theirs.grad)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("generator, mode", SEEDS)
def test_the_free_vector_trains_privately(generator, mode, offset, tmp_path):
    model = constrained(0, generator, mode, offset=offset)
    base = copy.deepcopy(model)
    before = model.free.detach().clone()
    with constant_offset(model):
        _train_privately(model)
    assert not torch.equal(model.free, before)
    base.load_state_dict(model.state_dict())
    assert base(batch()[0]).equal(model(batch()[0]))


def _train_privately(model):
    private, optimizer, loader = opacus.PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        data_loader=DataLoader(TensorDataset(*batch(32)), batch_size=8),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
    )
    for inputs, targets in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(private(inputs), targets).backward()
        optimizer.step()


def test_weights_kept_in_a_buffer_are_refused_by_opacus_itself():
    """Whoever forgets `constant_offset` is told; once it is not told any more, the helper can go."""
    with pytest.raises(NotImplementedError, match="buffers"):
        opacus.GradSampleModule(constrained(offset=True))
