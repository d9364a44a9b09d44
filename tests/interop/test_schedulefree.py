"""schedule-free: the optimiser swaps the values of the free vector between training and evaluation."""

import pytest
import torch

from .models import SEEDS, batch, constrained, train

schedulefree = pytest.importorskip("schedulefree")


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_evaluation_sees_the_averaged_vector_and_training_goes_on_from_the_other(generator, mode):
    model = constrained(0, generator, mode)
    optimizer = schedulefree.AdamWScheduleFree(model.parameters(), lr=0.05)
    optimizer.train()
    train(model, optimizer, 10)
    inputs, _ = batch()
    with torch.no_grad():
        training = model(inputs)
        optimizer.eval()
        evaluated = model(inputs)
        fresh = constrained(5, generator, mode)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(fresh(inputs), evaluated)
        assert not torch.allclose(training, evaluated)
        optimizer.train()
        torch.testing.assert_close(model(inputs), training)
