"""Lightning: checkpoints loaded into a model of another seed, and weight averaging."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from .models import SEEDS, batch, constrained


class Learner(lightning.LightningModule):
    def __init__(self, seed: int = 0, generator: str = "ring", mode: str = "model") -> None:
        super().__init__()
        self.save_hyperparameters(ignore="seed")
        self.net = constrained(seed, generator, mode)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs, targets = batch
        return nn.functional.cross_entropy(self.net(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.5)


def trainer(folder: Path, *callbacks: lightning.Callback, epochs: int = 2) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[ModelCheckpoint(folder, "{epoch}", save_top_k=-1), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*batch(32)), batch_size=8)


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_load_from_checkpoint_is_right_whatever_the_seed(tmp_path, generator, mode):
    learner = Learner(0, generator, mode)
    trainer(tmp_path).fit(learner, loader())
    torch.manual_seed(77)
    loaded = Learner.load_from_checkpoint(tmp_path / "epoch=1.ckpt", seed=5)
    inputs, _ = batch()
    assert torch.equal(loaded.net(inputs), learner.net(inputs))


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_a_training_is_resumed_in_a_model_of_another_seed(tmp_path, generator, mode):
    whole = Learner(0, generator, mode)
    trainer(tmp_path / "whole", epochs=3).fit(whole, loader())
    resumed = Learner(5, generator, mode)
    trainer(tmp_path / "resumed", epochs=3).fit(
        resumed, loader(), ckpt_path=tmp_path / "whole" / "epoch=0.ckpt"
    )
    inputs, _ = batch()
    assert torch.equal(resumed.net(inputs), whole.net(inputs))


@pytest.mark.parametrize("averaging", [WeightAveraging, EMAWeightAveraging])
@pytest.mark.parametrize("generator, mode", SEEDS)
def test_averaged_weights_are_those_of_the_averaged_vector(tmp_path, averaging, generator, mode):
    """G is linear: the mean of generated weights is what the mean of the free vectors generates."""
    seen = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, learner, *rest):
            seen.append(learner.net[3].weight.detach().clone())

    learner = Learner(0, generator, mode)
    average = averaging(use_buffers=True) if averaging is WeightAveraging else averaging(decay=0.5)
    trainer(tmp_path, Watch(), average).fit(learner, loader())
    inputs, _ = batch()
    loaded = Learner.load_from_checkpoint(tmp_path / "epoch=1.ckpt", seed=5)
    assert torch.equal(loaded.net(inputs), learner.net(inputs))
    assert len(seen) == 8
    if averaging is WeightAveraging:
        torch.testing.assert_close(learner.net[3].weight, torch.stack(seen).mean(0))
    assert not torch.equal(learner.net[3].weight, seen[-1])
