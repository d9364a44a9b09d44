"""A decoder that shares no code with lincon reads its files, as docs/format.md says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

import lincon

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
KNOWN = "drawn", "hash", "random", "ring"
FILES = sorted(path for path in GOLDEN.glob("*.safetensors") if "weights" not in path.name)


@pytest.fixture(scope="module")
def decoder():
    spec = importlib.util.spec_from_file_location("decoder", ROOT / "examples" / "decoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_another_decoder_reads_every_file_and_makes_the_same_weights(decoder, path):
    header, tensors = decoder.read(path.read_bytes())
    tensors = decoder.decoded(header, tensors)
    stored = lincon.inspect(path).tensors
    assert {name: tensor.numpy().tobytes() for name, tensor in stored.items()} == {
        name: tensors[name].tobytes() for name in stored
    }
    if path.stem.split("-")[0] in KNOWN:
        expected = load_file(path.with_name(f"weights.{path.name}"))
        made = decoder.weights(header, tensors)
        assert made and all(np.array_equal(made[name], expected[name]) for name in made)


def test_another_decoder_refuses_a_file_of_which_a_byte_was_changed(decoder):
    content = bytearray((GOLDEN / "ring-0.safetensors").read_bytes())
    content[-1] ^= 1
    with pytest.raises(ValueError, match="altered"):
        decoder.read(bytes(content))


@pytest.mark.parametrize("change", ["quantised", "isometric", "many rows"])
def test_another_decoder_makes_the_weights_of(decoder, tmp_path, change):
    model = nn.Sequential(nn.Linear(90, 70, bias=False), nn.Linear(70, 50))
    scale = "isometric" if change == "isometric" else "match"
    dof = 3000 if change == "many rows" else 100
    constraint = lincon.constrain(model, "ring", dof=dof, seed=-5, scale=scale)
    if change == "quantised":
        lincon.quantize(model, bits=4)
    lincon.save(model, tmp_path / "model.safetensors")
    header, tensors = decoder.read((tmp_path / "model.safetensors").read_bytes())
    made = decoder.weights(header, decoder.decoded(header, tensors))
    with torch.no_grad():
        expected = {name: weight.numpy() for name, weight in constraint.weights().items()}
    assert made.keys() == expected.keys()
    # Norms of columns are sums of squares, whose order another program may choose.
    equal = np.allclose if change == "isometric" else np.array_equal
    assert all(equal(made[name], expected[name]) for name in made)


def test_the_coded_ways_of_the_format_are_read_by_another_decoder(decoder):
    from lincon.files.coding import encode

    sparse = torch.zeros(5000, dtype=torch.int8)
    sparse[::300], sparse[7] = 3, -2
    cases = sparse, torch.arange(5000) % 3 == 0, torch.randint(0, 9, (70, 70), dtype=torch.int16)
    for values in (*cases, sparse.ne(0)):
        coded, description = encode(values)
        assert np.array_equal(decoder.decode(coded.numpy(), description), values.numpy())
