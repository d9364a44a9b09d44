"""skorch: training, cloning, and parameters loaded into a net of another seed."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from .models import SEEDS, batch, constrained

skorch = pytest.importorskip("skorch")


class Module(nn.Module):
    def __init__(self, seed: int = 0, generator: str = "ring", mode: str = "model") -> None:
        super().__init__()
        self.net = constrained(seed, generator, mode)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.softmax(self.net(inputs), 1)


def classifier(seed: int, generator: str, mode: str) -> Any:
    return skorch.NeuralNetClassifier(
        Module,
        module__seed=seed,
        module__generator=generator,
        module__mode=mode,
        max_epochs=3,
        lr=0.5,
        train_split=None,
        verbose=0,
    )


@pytest.mark.parametrize("generator, mode", SEEDS)
def test_parameters_are_loaded_into_a_net_of_another_seed(tmp_path, generator, mode):
    inputs, targets = (tensor.numpy() for tensor in batch(32))
    net = classifier(0, generator, mode).fit(inputs, targets)
    assert net.history[-1, "train_loss"] < net.history[0, "train_loss"]
    net.save_params(f_params=tmp_path / "weights.pt")
    other = classifier(5, generator, mode).initialize()
    other.load_params(f_params=tmp_path / "weights.pt")
    assert np.array_equal(other.predict_proba(inputs), net.predict_proba(inputs))
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.predict_proba(inputs), net.predict_proba(inputs))


def test_parameters_are_saved_as_safetensors(tmp_path):
    inputs, targets = (tensor.numpy() for tensor in batch(32))
    net = classifier(0, "ring", "model").fit(inputs, targets)
    net.save_params(f_params=tmp_path / "weights.safetensors", use_safetensors=True)
    other = classifier(5, "ring", "model").initialize()
    other.load_params(f_params=tmp_path / "weights.safetensors", use_safetensors=True)
    assert np.array_equal(other.predict_proba(inputs), net.predict_proba(inputs))
