"""peft: LoRA around constrained weights, constrained LoRA factors, and the adapters that it writes."""

import pytest
import torch

import lincon

from ..test_other_tools import X, constrained, plain

peft = pytest.importorskip("peft")


def adapters(model):
    config = peft.LoraConfig(target_modules=["0", "2"], r=2, init_lora_weights=False)
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_peft_around_a_constrained_model_is_merged(materialize, tmp_path):
    model = adapters(constrained(materialize))
    before = model(X).detach()
    with pytest.raises(lincon.TargetError, match=r"lincon\.merge\(model\.base_model\.model\)"):
        lincon.save(model, tmp_path / "m")
    lincon.merge(model)
    assert torch.equal(model(X), before)
    torch.testing.assert_close(model.merge_and_unload()(X), before)


@pytest.mark.parametrize("materialize", ["model", "layer"])
def test_constrained_factors_of_peft_are_in_the_adapter_that_it_writes(materialize, tmp_path):
    model = adapters(plain())
    lincon.constrain(model, "ring", dof=0.5, where="*lora_*", materialize=materialize)
    expected = model(X)
    model.save_pretrained(tmp_path)
    assert torch.equal(peft.PeftModel.from_pretrained(plain(), tmp_path)(X), expected)
    lincon.merge(model).save_pretrained(tmp_path / "merged")
    assert torch.equal(peft.PeftModel.from_pretrained(plain(), tmp_path / "merged")(X), expected)


def test_factors_constrained_beneath_the_peft_model_are_warned_of():
    model = adapters(plain())
    with pytest.warns(lincon.LinconWarning, match="constrain the PeftModel itself"):
        lincon.constrain(model.base_model.model, "ring", dof=0.5, where="*lora_*")
