"""captum: attributions of a constrained model are those of the same model merged."""

import copy

import pytest
import torch

import lincon

from .models import SEEDS, batch, constrained

captum = pytest.importorskip("captum.attr")

METHODS = ["Saliency", "InputXGradient", "IntegratedGradients", "DeepLift", "FeatureAblation"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("generator, mode", SEEDS)
def test_attributions_are_those_of_the_merged_model(method, generator, mode):
    model = constrained(0, generator, mode)
    merged = copy.deepcopy(model)
    lincon.merge(merged)
    inputs, targets = batch()
    ours, theirs = (
        getattr(captum, method)(each).attribute(inputs, target=targets) for each in (model, merged)
    )
    assert ours.abs().sum() > 0
    torch.testing.assert_close(ours, theirs)


def test_layer_attributions_reach_the_layers():
    model = constrained()
    inputs, targets = batch()
    found = captum.LayerActivation(model, model[0]).attribute(inputs)
    assert torch.equal(found, model[0](inputs))
    conductance = captum.LayerConductance(model, model[1]).attribute(inputs, target=targets)
    assert conductance.shape == (8, 16)
