"""accelerate: its loop, its checkpoints, its dispatch and offloading."""

import pytest
import torch

import lincon

from .models import SEEDS, batch, constrained, network, train

accelerate = pytest.importorskip("accelerate")


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_a_saved_state_is_right_in_a_model_of_another_seed(tmp_path, generator, mode):
    accelerator = accelerate.Accelerator(cpu=True)
    model = constrained(0, generator, mode)
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters()))
    train(model, optimizer)
    accelerator.save_state(str(tmp_path))
    expected = train(model, optimizer)

    again = accelerate.Accelerator(cpu=True)
    other = constrained(5, generator, mode)
    other, optimizer = again.prepare(other, torch.optim.Adam(other.parameters()))
    again.load_state(str(tmp_path))
    assert train(other, optimizer) == expected


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_a_checkpoint_is_dispatched_into_a_model_of_another_seed(tmp_path, generator, mode):
    model = constrained(0, generator, mode)
    accelerate.Accelerator(cpu=True).save_model(model, str(tmp_path))
    with accelerate.init_empty_weights():
        other = network(5)
    lincon.constrain_like(other, lincon.spec(model))
    other = accelerate.load_checkpoint_and_dispatch(other, str(tmp_path), device_map={"": "cpu"})
    inputs, _ = batch()
    assert torch.equal(other(inputs), model(inputs))


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_offloading_gives_the_same_outputs(tmp_path, generator, mode):
    model = constrained(0, generator, mode)
    inputs, _ = batch()
    expected = model(inputs)
    offloaded = accelerate.cpu_offload(constrained(0, generator, mode), torch.device("cpu"))
    assert torch.equal(offloaded(inputs), expected)
    on_disk = accelerate.disk_offload(
        constrained(0, generator, mode), str(tmp_path), torch.device("cpu")
    )
    assert torch.equal(on_disk(inputs), expected)
