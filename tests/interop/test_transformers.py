"""Hugging Face transformers, where it is installed: from_pretrained, the Trainer's resume."""

import json
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import lincon

transformers: Any = pytest.importorskip("transformers")
from lincon.integrations.transformers import (  # noqa: E402
    ConstrainedMixin,
    from_pretrained,
    save_pretrained,
)

# BERT's embedding has a padding row, which is generated like the others.
pytestmark = pytest.mark.filterwarnings("ignore:The padding row")

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
TOKENS = torch.randint(0, 30, (3, 7), generator=torch.Generator().manual_seed(0))


class Net(ConstrainedMixin, transformers.BertForSequenceClassification):  # type: ignore[misc]
    """By the mixin."""


class Own(transformers.BertForSequenceClassification):  # type: ignore[misc]
    """Constrains itself, as people write it."""

    def __init__(self, config):
        super().__init__(config)
        if config.lincon is not None:
            lincon.constrain_like(self, config.lincon)


def bert(cls=transformers.BertForSequenceClassification, seed=0, **options):
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, num_labels=2, lincon=None)
    model = cls(config).eval()
    if options is not None:
        lincon.constrain(model, **{"generator": "ring", "dof": 0.3, **options})
    return model


def moved(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def logits(model):
    return model.eval()(input_ids=TOKENS).logits


@pytest.mark.parametrize("options", [{}, {"offset": True}, {"scale": None}, {"scope": "tensor"}])
@pytest.mark.parametrize("auto", [False, True])
def test_a_constrained_model_comes_back_in_one_line(tmp_path, options, auto):
    model = moved(bert(**options))
    expected = logits(model)
    save_pretrained(model, tmp_path)
    cls = type(model)
    asked = transformers.AutoModelForSequenceClassification if auto else cls
    torch.manual_seed(9)
    same, report = from_pretrained(asked, tmp_path, output_loading_info=True)
    assert type(same) is cls and torch.equal(logits(same), expected)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert len(lincon.constraints(same)) == 1
    assert len(list(same.parameters())) == len(list(model.parameters()))
    assert [n for n, _ in same.named_buffers()] == [n for n, _ in model.named_buffers()]
    plain = from_pretrained(asked, tmp_path, merge=True)
    assert not lincon.constraints(plain) and torch.equal(logits(plain), expected)
    plain.save_pretrained(tmp_path / "plain")
    assert "lincon" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert torch.equal(logits(cls.from_pretrained(tmp_path / "plain")), expected)


@pytest.mark.parametrize("cls", [Net, Own])
def test_a_class_that_constrains_itself_needs_no_word(tmp_path, cls):
    model = moved(bert(cls))
    if cls is Own:
        model.config.lincon = lincon.spec(model)
    model.save_pretrained(tmp_path)
    torch.manual_seed(9)
    same = cls.from_pretrained(tmp_path)
    assert torch.equal(logits(same), logits(model))


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )


def masked_bert():
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES))


@pytest.mark.parametrize("make", [gpt2, masked_bert])
@pytest.mark.parametrize("partly", [False, True])
def test_tied_language_models_in_shards(tmp_path, make, partly):
    """Their heads are tied to embeddings, which are generated or not, and one has a tied bias."""
    torch.manual_seed(0)
    model = make().eval()
    blocks = [name for name, p in model.named_parameters() if p.dim() > 1 and ".0." in name]
    where = blocks if partly else None
    lincon.constrain(model, "hash", dof=0.5, where=where)
    moved(model)
    save_pretrained(model, tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    torch.manual_seed(9)
    same = from_pretrained(type(model), tmp_path)
    assert torch.equal(logits(same), logits(model))
    assert len(list(same.parameters())) == len(list(model.parameters()))
    plain = from_pretrained(type(model), tmp_path, merge=True)
    assert torch.equal(logits(plain), logits(model))
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight


def test_half_precision(tmp_path):
    model = moved(bert()).to(torch.bfloat16)
    save_pretrained(model, tmp_path)
    same = from_pretrained(type(model), tmp_path, dtype=torch.bfloat16)
    assert same.dtype == torch.bfloat16 and torch.equal(logits(same), logits(model))
    wide = from_pretrained(type(model), tmp_path, dtype=torch.float32)
    assert wide.free.dtype == torch.float32
    torch.testing.assert_close(logits(wide), logits(model).float(), rtol=0.05, atol=0.05)


def test_tensors_of_another_g_than_the_configuration_says_are_refused(tmp_path):
    save_pretrained(bert(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    other = bert(seed=1)
    lincon.merge(other)
    lincon.constrain(other, "ring", dof=0.3, seed=7)
    config["lincon"] = lincon.spec(other)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(lincon.FileError, match="seed is 0 there and 7 here"):
        from_pretrained(type(other), tmp_path)


class Numbers(Dataset[Any]):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        draw = torch.Generator().manual_seed(index)
        return {"input_ids": torch.randint(0, 30, (7,), generator=draw), "labels": index % 2}


def trainer(model, folder, steps):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        save_steps=2,
        lr_scheduler_type="constant",
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    return transformers.Trainer(model=model, args=arguments, train_dataset=Numbers())


@pytest.mark.parametrize("cls", [Net, transformers.BertForSequenceClassification])
def test_the_trainer_resumes_from_another_initial_seed(tmp_path, cls):
    def net(seed):
        model = bert(cls, seed)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model

    whole = net(0)
    trainer(whole, tmp_path / "whole", 4).train()
    trainer(net(0), tmp_path / "parts", 2).train()
    resumed = net(1)  # other initial weights, so other multipliers of its own
    trainer(resumed, tmp_path / "parts", 4).train(resume_from_checkpoint=True)
    torch.testing.assert_close(logits(resumed), logits(whole), rtol=0, atol=1e-6)
    if cls is Net:
        same = Net.from_pretrained(tmp_path / "parts" / "checkpoint-4")
        assert torch.equal(logits(same), logits(resumed))
    wrong = bert(cls, seed=0)
    lincon.merge(wrong)
    lincon.constrain(wrong, "ring", dof=0.3, seed=8)
    with pytest.raises(lincon.FileError, match="seed is 0 there and 8 here"):
        trainer(wrong, tmp_path / "parts", 6).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("wrong", ["bert-base-uncased", torch.nn.Linear, None])
def test_what_is_no_model_class_is_refused(wrong, tmp_path):
    with pytest.raises(lincon.TargetError, match=r"no model class.*comes first"):
        from_pretrained(wrong, tmp_path)
