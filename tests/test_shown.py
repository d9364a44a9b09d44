"""What models show of themselves: `summary` with its sizes, `plot`, and `help`."""

import pydoc

import pytest
import safetensors.torch
import torch
from torch import nn

import lincon
from lincon.files.size import size_of
from lincon.generators import Fold, Ring
from tests.models import convnet

MODELS = {
    "plain": lambda model: None,
    "a ring": lambda model: lincon.constrain(model, "ring", dof=0.1),
    "an offset from the seed": lambda model: lincon.constrain(model, "hash", dof=20, offset="seed"),
    "quantised": lambda model: (
        lincon.constrain(model, "ring", dof=0.5),
        lincon.quantize(model, 4),
    ),
    "pruned": lambda model: (lincon.constrain(model, "ring", dof=0.5), lincon.prune(model, 0.5)),
    "tables": lambda model: lincon.constrain(model, "codebook", dof=9),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_file_is_as_large_as_the_summary_says(kind, tmp_path):
    model = convnet()
    MODELS[kind](model)
    assert lincon.summary(model).file == lincon.save(model, tmp_path / "m.safetensors")


def test_the_size_is_that_of_safetensors_whatever_the_types_and_names():
    types = (
        torch.bool,
        torch.uint8,
        torch.int16,
        torch.bfloat16,
        torch.float32,
        torch.int64,
        torch.complex64,
    )
    tensors = {f'ö"{n}': torch.zeros(97 * n % 1013, dtype=kind) for n, kind in enumerate(types * 9)}
    for count in range(1, len(tensors)):
        some = dict(list(tensors.items())[:count])
        metadata = {"a": 'b"\n\\' * count}
        assert size_of(some, metadata) == len(safetensors.torch.save(some, metadata))


def test_a_model_that_cannot_be_saved_has_no_size():
    with torch.device("meta"):
        counts = lincon.summary(nn.Linear(3, 2))
    assert counts.file is None and "file" not in str(counts)


def test_a_summary_shows_itself_in_a_terminal_and_in_a_notebook():
    model = nn.ModuleDict({"<b>": nn.Linear(4, 3)})
    lincon.constrain(model, "ring", dof=5)
    counts = lincon.summary(model)
    assert repr(counts) == str(counts) and "<b>.weight" in repr(counts)
    assert "&lt;b&gt;.weight" in counts._repr_html_() and "file bytes" in counts._repr_html_()


@pytest.mark.parametrize("rows, dof", [(40, 7), (7, 40), (7, 7)])
@pytest.mark.parametrize("kind", [Ring, lambda *sizes: Ring(*sizes, order="deck"), Fold])
def test_unused_entries_are_those_of_empty_columns(kind, rows, dof):
    generator = kind(rows, dof)
    assert generator.unused() == int((generator.dense() == 0).all(0).sum())


@pytest.mark.parametrize("generator", ["ring", "hash", "sparse", "dense", "mask"])
def test_a_plot_counts_the_entries_of_each_tensor(generator):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    if generator == "mask":
        lincon.constrain(model, "ring", dof=6)
        lincon.prune(model, 0.5, level="weights")
    else:
        lincon.constrain(model, generator, dof=6)
    (constraint,) = lincon.constraints(model)
    (group,) = constraint.groups
    nonzero = (group.generator.dense() != 0).double()
    expected = [nonzero[entry.start : entry.stop].sum(0).tolist() for entry in group.ledger]
    (shown,) = lincon.plot(model).axes[0].get_images()
    assert shown.get_array().tolist() == expected


def test_a_plot_of_a_plain_model_is_refused():
    with pytest.raises(lincon.LinconError, match=r"call lincon\.constrain first"):
        lincon.plot(nn.Linear(3, 2))


def test_help_lists_the_public_functions_a_line_each():
    text = pydoc.plain(pydoc.render_doc(lincon)).partition("PACKAGE CONTENTS")[0]
    functions = [
        name for name in lincon.__all__ if name.islower() and callable(getattr(lincon, name))
    ]
    assert len(functions) > 10
    for name in functions:
        assert sum(line.split()[:1] == [name] for line in text.splitlines()) == 1
